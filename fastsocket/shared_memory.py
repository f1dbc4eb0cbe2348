"""Read from outside what libfsocket.so says about a running server.

The library keeps it in a memfd that the server's whole process tree maps. /proc/PID/maps (proc(5)) of any of these
processes leads there. Any process can map another file under that name to mislead a reader that is root. Therefore the
reader trusts little:

- It reads the file itself. It does not read another user's process memory, where a page fault may wait for as long as
  that process likes (userfaultfd(2)).
- It uses the sizes and offsets of the library's version, not those that the memory claims.
- It uses all other content only in ways in which a lie does no harm.
"""

import os
import socket
import struct
import time
from collections.abc import Iterator
from ctypes import Structure, c_char, c_int32, c_uint8, c_uint32, c_uint64, sizeof
from dataclasses import dataclass, make_dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Self

from fastsocket.counters import COUNTER_NAMES
from fastsocket.printable import printable
from fastsocket.steering.cpus import machine_cpus

# ---- the layout of libfsocket/shared.h; change both together

MAPPING = "/memfd:fsocket (deleted)"
MAGIC = b"FSOCKET"
VERSION = 7
MAX_CPUS = 1024  # CPU_SETSIZE
MAX_LISTENERS = 64
MAX_ADOPTERS = 8


class Header(Structure):
    """The beginning of struct shared_memory, up to the fields that are not read from outside."""

    _fields_ = [
        ("magic", c_char * 8),
        ("version", c_uint32),
        ("cpus", c_uint32),
        ("counters_offset", c_uint32),
        ("counters_stride", c_uint32),
        ("listeners_offset", c_uint32),
        ("listeners_stride", c_uint32),
        ("listeners", c_uint32),
        ("seats_offset", c_uint32),
        ("seats_stride", c_uint32),
        ("adopters", c_uint32),
    ]


class CountersLine(Structure):
    """The beginning of struct cpu_counters."""

    _fields_ = [(name, c_uint64) for name in COUNTER_NAMES]


class SeatLine(Structure):
    """The beginning of struct seat."""

    _fields_ = [
        ("adopter", c_uint64 * MAX_ADOPTERS),
        ("tended_ms", c_uint64),
        ("accepted", c_uint64),
        ("listening", c_uint32),
        ("failing", c_uint32),
    ]


class ListenerHead(Structure):
    """The beginning of struct shared_listener."""

    _fields_ = [
        ("in_use", c_uint32),
        ("creator", c_int32),
        ("cookie", c_uint64),
        ("address", c_uint8 * 128),
        ("why_not", c_char * 112),
        ("tickets", c_uint32),
        ("balance", c_int32),
    ]


COUNTERS_OFFSET = 64
COUNTERS_STRIDE = 256  # more than sizeof(CountersLine)
SEATS_OFFSET, SEATS_STRIDE = 320 + 2 * 8 * MAX_CPUS, 128  # the seats follow the arrays of shards and of waiting
LISTENERS_OFFSET = COUNTERS_OFFSET + MAX_CPUS * COUNTERS_STRIDE
LISTENERS_STRIDE = SEATS_OFFSET + MAX_CPUS * SEATS_STRIDE
MEMORY_BYTES = LISTENERS_OFFSET + MAX_LISTENERS * LISTENERS_STRIDE
# The sizes and offsets that an honest header has.
GEOMETRY = {
    "counters_offset": COUNTERS_OFFSET,
    "counters_stride": COUNTERS_STRIDE,
    "listeners_offset": LISTENERS_OFFSET,
    "listeners_stride": LISTENERS_STRIDE,
    "listeners": MAX_LISTENERS,
    "seats_offset": SEATS_OFFSET,
    "seats_stride": SEATS_STRIDE,
    "adopters": MAX_ADOPTERS,
}

# ---- the content

MAPS_BYTES = 16 << 20  # how much is read of a process's list of mappings, which can have 65530 long names
MAPS_CHUNK = 1 << 18


# Totals of one CPU since the server started: its number, and each counter of libfsocket/counters.def.
if TYPE_CHECKING:

    @dataclass(frozen=True)
    class CpuCounters:
        """What was counted on one CPU: each counter of counters.py is an attribute."""

        def __init__(self, cpu: int, *counts: int) -> None: ...
        def __getattr__(self, name: str) -> int: ...

else:
    CpuCounters = make_dataclass("CpuCounters", [(name, int) for name in ("cpu", *COUNTER_NAMES)], frozen=True)


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
    tended_ms_ago: int | None  # ms since an adopter last waited for connections here; None: no adopter does


@dataclass(frozen=True)
class Listener:
    """A listener of the application."""

    address: str
    port: int
    creator: int | None  # the process that called listen(); None once it has let go of the listener, or has ended
    why_not: str  # why connections do not go to the workers' own CPUs; empty: they do
    balance: str  # "on": the library's BPF program may give a connection to another worker; "off"; or why it cannot
    cpus: list[LocalListener]  # the clones that listen, or have an adopter

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


class NotPreloaded(Exception):
    """The process has no shared memory of libfsocket: the library is not loaded, or its server does not listen yet."""

    exit_status = 1


class OtherVersion(NotPreloaded):
    """The shared memory is that of an older or newer version of the library, or not libfsocket's at all."""


@dataclass(frozen=True)
class Mapping:
    """Where a process has the shared memory mapped, and which memory that is."""

    span: str  # first and last address, in the form of /proc/PID/maps
    inode: int  # the memfd's inode number, which tells it from other memfds

    @property
    def address(self) -> int:
        return int(self.span.split("-")[0], 16)


def mapping_of(pid: int) -> Mapping:
    """Where a process has the shared memory mapped.

    Raises NotPreloaded; FileNotFoundError, ProcessLookupError or PermissionError as /proc does.
    """
    for line in _lines(f"/proc/{pid}/maps", MAPS_BYTES):
        if line.endswith(MAPPING):
            span, _, _, device, inode, name = line.split(maxsplit=5)
            if name == MAPPING and device == _memfds()[0]:  # on another device it is only a file of the same name
                return Mapping(span, int(inode))
    raise NotPreloaded(f"process {pid} runs without libfsocket.so, or does not listen yet")


def _lines(file: str, most: int) -> Iterator[str]:
    """The complete lines of a file of the kernel, within its first bytes. most: how many bytes are read."""
    left, rest = most, b""
    with open(file, "rb", buffering=0) as opened:
        while left > 0 and (chunk := opened.read(min(left, MAPS_CHUNK))):
            left -= len(chunk)
            *whole, rest = (rest + chunk).split(b"\n")
            yield from (line.decode(errors="replace") for line in whole)


@cache
def _memfds() -> tuple[str, str]:
    """The device and the mount id of the kernel's one file system for memfds. The device is as in /proc/PID/maps."""
    memfd = os.memfd_create("any", os.MFD_CLOEXEC)
    try:
        device = os.fstat(memfd).st_dev
        return f"{os.major(device):02x}:{os.minor(device):02x}", _mount_of(memfd)
    finally:
        os.close(memfd)


def _mount_of(descriptor: int) -> str:
    """The id of the mount that a file is on, as the kernel tells it. For FUSE, fstat() would ask a user's process."""
    return Path(f"/proc/self/fdinfo/{descriptor}").read_text().partition("mnt_id:")[2].split()[0]


class SharedMemory:
    """The shared memory of the server that a process belongs to, open for reading. It may change at any moment.

    Raises NotPreloaded; FileNotFoundError, ProcessLookupError or PermissionError as /proc does.
    """

    def __init__(self, pid: int, mapping: Mapping | None = None):
        found = mapping or mapping_of(pid)
        self._file, self._start = _opened(pid, found)
        try:
            header = Header.from_buffer_copy(self._read(0, sizeof(Header)))
            self._check(pid, header)
        except BaseException:
            self.close()
            raise
        self._cpus = min(header.cpus, machine_cpus())

    @staticmethod
    def _check(pid: int, header: Header) -> None:
        if header.magic != MAGIC or header.version != VERSION:
            raise OtherVersion(f"process {pid} has another version of libfsocket.so")
        if header.cpus > MAX_CPUS or any(getattr(header, name) != value for name, value in GEOMETRY.items()):
            raise OtherVersion(f"process {pid} has something else under libfsocket's name")

    def _read(self, offset: int, size: int) -> bytes:
        raw = os.pread(self._file, size, self._start + offset)
        if len(raw) < size:
            raise ProcessLookupError("the process has ended, or has shortened its shared memory")
        return raw

    def counters(self) -> list[CpuCounters]:
        """The counters, one entry per configured CPU."""
        lines = self._read(COUNTERS_OFFSET, self._cpus * COUNTERS_STRIDE)
        return [
            _counters(cpu, CountersLine.from_buffer_copy(lines, cpu * COUNTERS_STRIDE)) for cpu in range(self._cpus)
        ]

    def listeners(self) -> Iterator[Listener]:
        """All listeners of the server. The processes that they name may have ended since.

        The library takes places for listeners in order and never gives one back, so the first free place ends the list.
        """
        for index in range(MAX_LISTENERS):
            place = self._read(LISTENERS_OFFSET + index * LISTENERS_STRIDE, SEATS_OFFSET + self._cpus * SEATS_STRIDE)
            head = ListenerHead.from_buffer_copy(place)
            if not head.in_use:
                return
            yield _listener(head, place[SEATS_OFFSET:], self._cpus)

    def close(self) -> None:
        os.close(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _opened(pid: int, mapping: Mapping) -> tuple[int, int]:
    """Open the file that holds the shared memory. Returns its descriptor, and the offset of the memory in the file.

    The file is the memfd. Where the kernel lets only root open the memfd, the file is the memory of the process, which
    then belongs to the caller.
    """
    try:
        place = os.open(f"/proc/{pid}/map_files/{mapping.span}", os.O_PATH | os.O_CLOEXEC)
    except PermissionError:
        return os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC), mapping.address
    try:
        if _mount_of(place) != _memfds()[1]:  # another file was mapped there since mapping_of() looked
            raise OtherVersion(f"process {pid} has something else under libfsocket's name")
        return _opened_memfd(pid, f"/proc/self/fd/{place}"), 0
    finally:
        os.close(place)


def _opened_memfd(pid: int, path: str) -> int:
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    size = os.fstat(file).st_size
    if size == MEMORY_BYTES:
        return file
    os.close(file)
    raise OtherVersion(f"process {pid} has another version of libfsocket.so: its shared memory has {size} bytes")


def _counters(cpu: int, line: CountersLine) -> CpuCounters:
    return CpuCounters(cpu, *(getattr(line, name) for name, *_ in line._fields_))


def _listener(head: ListenerHead, seats: bytes, cpus: int) -> Listener:
    clones = [_local_listener(cpu, SeatLine.from_buffer_copy(seats, cpu * SEATS_STRIDE)) for cpu in range(cpus)]
    address, port = _address_and_port(bytes(head.address))
    creator = head.creator if head.creator > 0 else None
    return Listener(
        address,
        port,
        creator,
        printable(head.why_not.decode(errors="replace")),
        _balance(head.balance),
        [clone for clone in clones if clone.listening or clone.adopters],
    )


def _balance(number: int) -> str:
    """Listener.balance for the number in the shared memory. A negative number is the kernel's error for the program."""
    return os.strerror(-number) if number < 0 else "on" if number else "off"


def _local_listener(cpu: int, line: SeatLine) -> LocalListener:
    adopters = [Adopter(adopter >> 32, adopter & 0xFFFFFFFF) for adopter in dict.fromkeys(line.adopter) if adopter]
    ago = max(0, time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1_000_000 - line.tended_ms)
    return LocalListener(cpu, bool(line.listening), adopters, ago if line.tended_ms else None)


def _address_and_port(address: bytes) -> tuple[str, int]:
    """The address and port of a struct sockaddr_storage.

    An IPv6 scope stays a number, because its name belongs to the server's network namespace.
    """
    family, port = struct.unpack_from("=H", address)[0], struct.unpack_from("!H", address, 2)[0]
    if family == socket.AF_INET:
        return socket.inet_ntop(family, address[4:8]), port
    (scope,) = struct.unpack_from("=I", address, 24)
    return socket.inet_ntop(socket.AF_INET6, address[8:24]) + (f"%{scope}" if scope else ""), port


def counters(pid: int) -> list[CpuCounters]:
    """The counters of the server that a process belongs to, one entry per configured CPU.

    Raises NotPreloaded; FileNotFoundError, ProcessLookupError or PermissionError as /proc does.
    """
    with SharedMemory(pid) as memory:
        return memory.counters()
