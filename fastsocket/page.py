"""What libfsocket.so says of a running server, read from outside.

The library keeps it in a memfd that the server's whole process tree maps; any of its processes leads there through
/proc/PID/maps and /proc/PID/mem (proc(5)). Strides and the offsets of the parts are in the page itself; what a part
begins with is told here, as section page.c of libfsocket/fsocket.h tells it. Whatever a process maps under that name
is believed only as far as it can do no harm.
"""

import os
import socket
import struct
import time
from collections.abc import Iterator
from ctypes import Structure, c_char, c_int32, c_uint8, c_uint32, c_uint64, sizeof
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

MAPPING = "/memfd:fsocket (deleted)"
MAGIC = b"FSOCKET"
VERSION = 4
MAX_CPUS = 1024  # CPU_SETSIZE
MAX_LISTENERS = 64
MAX_ADOPTERS = 8


class Header(Structure):
    """How struct page begins."""

    _fields_ = [("magic", c_char * 8), ("version", c_uint32), ("cpus", c_uint32),
                ("counters_offset", c_uint32), ("counters_stride", c_uint32),
                ("listeners_offset", c_uint32), ("listeners_stride", c_uint32), ("listeners", c_uint32),
                ("seats_offset", c_uint32), ("seats_stride", c_uint32), ("adopters", c_uint32)]


class CountersLine(Structure):
    """How struct cpu_counters begins."""

    _fields_ = [(name, c_uint64) for name in ("accepted_local", "accepted_global", "accepted_neighbour", "adopted",
                                              "fallen_back", "deferred", "registered", "delivered",
                                              "undelivered")]


class SeatLine(Structure):
    """How struct seat begins."""

    _fields_ = [("adopter", c_uint64 * MAX_ADOPTERS), ("tended_ms", c_uint64), ("accepted", c_uint64),
                ("listening", c_uint32)]


class ListenerHead(Structure):
    """How struct shared_listener begins."""

    _fields_ = [("in_use", c_uint32), ("creator", c_int32), ("cookie", c_uint64), ("address", c_uint8 * 128),
                ("why_not", c_char * 112)]


Part = TypeVar("Part", bound=Structure)


@dataclass(frozen=True)
class CpuCounters:
    """Totals of one CPU since the server started."""

    cpu: int
    accepted_local: int
    accepted_global: int
    accepted_neighbour: int
    adopted: int
    fallen_back: int
    deferred: int
    registered: int
    delivered: int
    undelivered: int


@dataclass(frozen=True)
class Adopter:
    """A thread that accepts from the local listener of a CPU."""

    process: int
    thread: int


@dataclass(frozen=True)
class LocalListener:
    """The clone of a listener for one CPU."""

    cpu: int
    listening: bool
    adopters: list[Adopter]
    tended_ms_ago: int | None  # since an adopter last waited for it; None: nobody does


@dataclass(frozen=True)
class Listener:
    """A listener of the application."""

    address: str
    port: int
    creator: int | None  # the process that listened; None once it has let go, or ended
    why_not: str         # why connections do not go to the workers' own CPUs; empty: they do
    cpus: list[LocalListener]  # those that listen, or have an adopter

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


class NotPreloaded(Exception):
    """The process has no page of libfsocket: the library is not loaded, or nothing has called listen() yet."""

    exit_status = 1


class OtherVersion(NotPreloaded):
    """There is a page, but the library that made it is older or newer than we are."""


@dataclass(frozen=True)
class Mapping:
    """Where a process has the page, and which page that is."""

    address: int
    memfd: tuple[str, int]  # device and inode


def mapping_of(pid: int) -> Mapping:
    """Raises NotPreloaded; FileNotFoundError, ProcessLookupError or PermissionError as /proc does."""
    for line in Path(f"/proc/{pid}/maps").read_text(errors="replace").splitlines():
        if line.endswith(MAPPING):
            span, _, _, device, inode, *_ = line.split(maxsplit=5)
            return Mapping(int(span.split("-")[0], 16), (device, int(inode)))
    raise NotPreloaded(f"process {pid} runs without libfsocket.so, or does not listen yet")


class Page:
    """The page of the server that a process belongs to, open for reading; what it says may change at any moment.

    Raises NotPreloaded; FileNotFoundError, ProcessLookupError or PermissionError as /proc does.
    """

    def __init__(self, pid: int):
        self._address = mapping_of(pid).address
        self._memory = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._header = self._read(Header, 0)
            self._check(pid)
        except BaseException:
            self.close()
            raise

    def _check(self, pid: int) -> None:
        header = self._header
        if header.magic != MAGIC or header.version != VERSION:
            raise OtherVersion(f"process {pid} has another version of libfsocket.so")
        if header.cpus > MAX_CPUS or header.listeners > MAX_LISTENERS or header.adopters != MAX_ADOPTERS:
            raise OtherVersion(f"process {pid} has something else under libfsocket's name")

    def _read(self, part: type[Part], offset: int) -> Part:
        raw = os.pread(self._memory, sizeof(part), self._address + offset)
        if len(raw) < sizeof(part):
            raise ProcessLookupError("the process has ended")
        return part.from_buffer_copy(raw)

    def counters(self) -> list[CpuCounters]:
        """One entry per configured CPU."""
        header = self._header
        lines = [self._read(CountersLine, header.counters_offset + cpu * header.counters_stride)
                 for cpu in range(header.cpus)]
        return [CpuCounters(cpu, *(getattr(line, name) for name, _ in line._fields_))
                for cpu, line in enumerate(lines)]

    def listeners(self) -> list[Listener]:
        """All that the page tells of: who is named there may have ended since."""
        return [self._listener(head, offset) for head, offset in self._places()]

    def _places(self) -> Iterator[tuple[ListenerHead, int]]:
        """Places are taken in their order and never given back, so the first free one ends the list."""
        for index in range(self._header.listeners):
            offset = self._header.listeners_offset + index * self._header.listeners_stride
            head = self._read(ListenerHead, offset)
            if not head.in_use:
                return
            yield head, offset

    def _listener(self, head: ListenerHead, offset: int) -> Listener:
        seats = [self._local_listener(cpu, offset + self._header.seats_offset + cpu * self._header.seats_stride)
                 for cpu in range(self._header.cpus)]
        address, port = _address_and_port(bytes(head.address))
        return Listener(address, port, head.creator or None, printable(head.why_not.decode(errors="replace")),
                        [seat for seat in seats if seat.listening or seat.adopters])

    def _local_listener(self, cpu: int, offset: int) -> LocalListener:
        line = self._read(SeatLine, offset)
        adopters = [Adopter(adopter >> 32, adopter & 0xFFFFFFFF) for adopter in line.adopter if adopter]
        ago = max(0, time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1_000_000 - line.tended_ms)
        return LocalListener(cpu, bool(line.listening), adopters, ago if line.tended_ms else None)

    def close(self) -> None:
        os.close(self._memory)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()


def _address_and_port(address: bytes) -> tuple[str, int]:
    """Of a struct sockaddr_storage. A scope is kept as its number: its name is of another network namespace."""
    family, port = struct.unpack_from("=H", address)[0], struct.unpack_from("!H", address, 2)[0]
    if family == socket.AF_INET:
        return socket.inet_ntop(family, address[4:8]), port
    scope, = struct.unpack_from("=I", address, 24)
    return socket.inet_ntop(socket.AF_INET6, address[8:24]) + (f"%{scope}" if scope else ""), port


def printable(text: str) -> str:
    """Other people's words, fit for the terminal of whoever asks, who may be root."""
    return "".join(character if character.isprintable() else "?" for character in text)


def counters(pid: int) -> list[CpuCounters]:
    """The counters of the server that a process belongs to, one entry per configured CPU.

    Raises NotPreloaded; FileNotFoundError, ProcessLookupError or PermissionError as /proc does.
    """
    with Page(pid) as page:
        return page.counters()
