"""Which worker watches which listener of a server, and on which CPUs it may run."""

import os
import platform
import select
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from fastsocket.binary import is_go
from fastsocket.measure.listeners import Listeners, Listening
from fastsocket.measure.reading import sockets_of
from fastsocket.processes import Process, epolls_of, family, numbers

# Numbers of epoll_wait, epoll_pwait and epoll_pwait2: arch/x86/entry/syscalls/syscall_64.tbl; asm-generic/unistd.h.
_WAITS = {"x86_64": {232, 281, 441}, "aarch64": {22, 441}}
_PAUSE_SECONDS = 0.002  # the pause between two looks
_LOOK_SECONDS = 1.0  # how long to look for a listener that no epoll holds, and for a thread that runs at each look
_LEAST_LOOKS = 20  # where threads wait in one epoll by turns, a single look sees only one of them


@dataclass(frozen=True)
class Worker:
    """A thread that waits for connections."""

    process: Process
    thread: int

    def cpus(self) -> set[int]:
        """The CPUs where the worker may run. Raises ProcessLookupError."""
        return os.sched_getaffinity(self.thread)

    def is_of_go(self) -> bool:
        return _is_go(self.process)


@cache
def _is_go(process: Process) -> bool:
    return is_go(Path(f"/proc/{process.pid}/exe"))


@dataclass(frozen=True)
class Listener:
    """A TCP socket that listens, with the workers that watch it."""

    inode: int
    address: str  # as in "127.0.0.1:80" and "[::]:80"
    workers: frozenset[Worker]
    is_ours: bool  # True: a process of the server holds this listener


class Watched:
    """The listeners of a server, and the workers that watch them."""

    def __init__(self, pid: int):
        """pid: the process from which the server's other processes descend."""
        self._pid = pid
        self._seen: tuple[list[int], set[int]] = [], set()
        self._found: list[Listener] = []

    def look(self) -> list[Listener]:
        """All listeners in the server's network namespace that have the same address as a listener of the server.

        Epolls are read only where a process or a listener came or went since the last look, or where no worker watches
        some listener of the server: the server cannot use an epoll while it is read, and that takes long when the epoll
        has very many connections. Raises OutOfReach, PermissionError, FileNotFoundError.
        """
        members, listening = family(self._pid), self._listening()
        seen = members, set(listening)
        if seen != self._seen or not all(one.workers for one in self._found if one.is_ours):
            self._seen, self._found = seen, _found(members, listening)
        return self._found

    def _listening(self) -> dict[int, Listening]:
        with Listeners(self._pid) as known:
            return known.read()


def _found(members: list[int], listening: dict[int, Listening]) -> list[Listener]:
    held = sockets_of(members) & listening.keys()
    watching = _all_watchers(members, held)
    served = {str(listening[inode]) for inode in held}
    return [
        Listener(inode, str(one), frozenset(watching.get(inode, ())), inode in held)
        for inode, one in sorted(listening.items())
        if str(one) in served
    ]


def _all_watchers(members: list[int], inodes: set[int]) -> dict[int, set[Worker]]:
    """The workers that watch each socket, by inode, from several looks.

    One look is not enough: nginx takes its listener out of the epoll for a moment after each 16 connections.
    """
    found: dict[int, set[Worker]] = {}
    for _ in _looks():
        for inode, workers in _watchers(members, inodes).items():
            found.setdefault(inode, set()).update(workers)
        if found.keys() == inodes:
            break
    return found


def _looks() -> Iterator[int]:
    """Yield the number of each look, 1, 2, …, with pauses between them, until _LOOK_SECONDS are over."""
    ends, number = time.monotonic() + _LOOK_SECONDS, 0
    while not number or time.monotonic() < ends:
        yield (number := number + 1)
        time.sleep(_PAUSE_SECONDS)


def _watchers(members: list[int], inodes: set[int]) -> dict[int, set[Worker]]:
    """The workers whose epoll reports a socket as readable, by the socket's inode."""
    found: dict[int, set[Worker]] = {}
    for member in members:
        with suppress(ProcessLookupError):
            process, epolls = Process.at(member), dict(_watching(member, inodes))
            for epoll, worker in _waiting(process, set(epolls)):
                for inode in epolls[epoll]:
                    found.setdefault(inode, set()).add(worker)
    return found


def _watching(pid: int, inodes: set[int]) -> Iterator[tuple[int, set[int]]]:
    """Each epoll of a process that reports some of these sockets as readable, with the inodes of those sockets."""
    for epoll, watches in epolls_of(pid).items():
        if watched := {watch.inode for watch in watches if watch.events & select.EPOLLIN} & inodes:
            yield epoll, watched


def _waiting(process: Process, epolls: set[int]) -> set[tuple[int, Worker]]:
    """The epolls in which threads of a process wait, each with its thread.

    The only thread of a process counts as waiting in all of its epolls. Of several, each is seen only while it waits.
    """
    found: set[tuple[int, Worker]] = set()
    if not epolls:
        return found
    members = numbers(f"/proc/{process.pid}/task")
    if len(members) == 1:
        return {(epoll, Worker(process, members[0])) for epoll in epolls}
    for look in _looks():
        for thread in members:
            epoll = _waits_in(process.pid, thread)
            if epoll in epolls:
                found.add((epoll, Worker(process, thread)))
        if look >= _LEAST_LOOKS and {epoll for epoll, _ in found} == epolls:
            break
    return found


def _waits_in(pid: int, thread: int) -> int | None:
    """The descriptor of the epoll in which a thread waits now, or None (proc(5), /proc/PID/syscall)."""
    try:
        number, *arguments = Path(f"/proc/{pid}/task/{thread}/syscall").read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    if number == "running" or int(number) not in _WAITS.get(platform.machine(), set()):
        return None
    return int(arguments[0], 16)
