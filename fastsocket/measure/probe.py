"""What BPF programs count of a server, thread by thread (bpf/measure.bpf.c).

The programs and maps are not pinned, so the kernel removes them when this process ends, however it ends.
"""

import os
import struct
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import NamedTuple, Self

from fastsocket import reads
from fastsocket.libbpf import has_tracepoint
from fastsocket.measure.tasks import NS

_ROW = struct.Struct("=9Q")
_WATCHED = struct.Struct("=1024QI4x")
_YES = struct.pack("=I", 1)
CONTENTION, CALLS = "contention_begin", "sys_enter"
NEW_THREADS = 8192  # how many threads that start later the map has room for


class Row(NamedTuple):
    """What one thread did, or all threads together. firsts: the first reads of connections.

    The worker that accepted a connection makes its first read.
    """

    passive_reads: int = 0
    passive_local: int = 0
    passive_firsts: int = 0
    passive_firsts_local: int = 0
    active_reads: int = 0
    active_local: int = 0
    active_firsts: int = 0
    contentions: int = 0
    calls: int = 0

    @property
    def reads(self) -> int:
        return self.passive_reads + self.active_reads


class Took(NamedTuple):
    """Seconds that BPF programs ran while they were timed.

    always: the programs that count all the time. calls: the program that counts system calls.
    """

    always: float
    calls: float

    def __sub__(self, earlier: Self) -> "Took":
        return Took(self.always - earlier.always, self.calls - earlier.calls)


def total(rows: Iterable[Row]) -> Row:
    return Row(*map(sum, zip(Row(), *rows)))


class Probe(AbstractContextManager["Probe"]):
    """Counts from the beginning of the with block to its end. Raises BpfError."""

    def __init__(self, threads: Mapping[int, Collection[int]], ports: Iterable[int]):
        """threads: the threads of each process of the server. ports: the ports on which the server listens."""
        self._threads, self._ports = threads, ports

    def __enter__(self) -> Self:
        seen_by = reads.tracepoint()
        self.sees_contentions = has_tracepoint(CONTENTION)
        with ExitStack() as stack:
            lacking = [] if self.sees_contentions else [CONTENTION]
            self._object = stack.enter_context(reads.load("measure", seen_by, lacking, self._entries()))
            self._tell()
            self._always = {seen_by, CONTENTION} - {*lacking}
            for tracepoint in self._always:
                self._object.attach(tracepoint)
            self._stack = stack.pop_all()
        return self

    def _entries(self) -> dict[str, int]:
        threads = sum(len(of) for of in self._threads.values())
        return {"processes": max(1, len(self._threads)), "threads": threads + NEW_THREADS}

    def _tell(self) -> None:
        self._object.write(".data", _WATCHED.pack(*_bits(self._ports), os.stat("/proc/self/ns/pid").st_ino))
        for process, threads in self._threads.items():
            self._object.write("processes", _YES, process)
            for thread in threads:
                self._object.write("threads", bytes(_ROW.size), thread)

    def read(self) -> dict[int, Row]:
        """What each thread did so far, by thread."""
        return {thread: Row(*_ROW.unpack(value)) for thread, value in self._object.read_hash("threads").items()}

    @contextmanager
    def counting_calls(self) -> Iterator[None]:
        """Count system calls during the with block, which makes each system call of the machine slower."""
        with self._object.attached(CALLS):
            yield

    def took(self) -> Took:
        return Took(NS * sum(map(self._object.ran_ns, self._always)), NS * self._object.ran_ns(CALLS))

    def __exit__(self, *exception: object) -> None:
        self._stack.close()


def _bits(ports: Iterable[int]) -> list[int]:
    """A bit for each port, in 1024 words of 64 bits, as the BPF program looks ports up."""
    words = [0] * 1024
    for port in ports:
        words[port >> 6] |= 1 << (port & 63)
    return words
