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

# Their numbers (epoll_wait, epoll_pwait, epoll_pwait2): arch/x86/entry/syscalls/syscall_64.tbl; asm-generic/unistd.h.
_WAITS = {"x86_64": {232, 281, 441}, "aarch64": {22, 441}}
_PAUSE_SECONDS = 0.002  # between looks
_LOOK_SECONDS = 1.0  # for a listener that no epoll holds, and for a thread that runs at each look
_LEAST_LOOKS = 20  # at threads: of some that wait in one epoll by turns, one is seen at a time


@dataclass(frozen=True)
class Worker:
    """A thread that waits for connections."""

    process: Process
    thread: int

    def cpus(self) -> set[int]:
        """Where it may run. Raises ProcessLookupError."""
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
    is_ours: bool  # a process of the server has it


class Watched:
    """The listeners of a server, and who watches them."""

    def __init__(self, pid: int):
        """pid: the process that the others descend from."""
        self._pid = pid
        self._seen: tuple[list[int], set[int]] = [], set()
        self._found: list[Listener] = []

    def look(self) -> list[Listener]:
        """All in the server's network namespace whose address is also that of a listener of the server.

        Epolls are looked into only where a process or a listener came or went since, or one is not watched: an epoll of
        very many connections stands still meanwhile. Raises OutOfReach, PermissionError, FileNotFoundError.
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
    """Looks several times: nginx takes its listener out of the epoll for a moment after each 16 connections."""
    found: dict[int, set[Worker]] = {}
    for _ in _looks():
        for inode, workers in _watchers(members, inodes).items():
            found.setdefault(inode, set()).update(workers)
        if found.keys() == inodes:
            break
    return found


def _looks() -> Iterator[int]:
    """1, 2, …, at intervals, until the time is up."""
    ends, number = time.monotonic() + _LOOK_SECONDS, 0
    while not number or time.monotonic() < ends:
        yield (number := number + 1)
        time.sleep(_PAUSE_SECONDS)


def _watchers(members: list[int], inodes: set[int]) -> dict[int, set[Worker]]:
    """Of each socket the workers whose epoll reports it as readable."""
    found: dict[int, set[Worker]] = {}
    for member in members:
        with suppress(ProcessLookupError):
            process, epolls = Process.at(member), dict(_watching(member, inodes))
            for epoll, worker in _waiting(process, set(epolls)):
                for inode in epolls[epoll]:
                    found.setdefault(inode, set()).add(worker)
    return found


def _watching(pid: int, inodes: set[int]) -> Iterator[tuple[int, set[int]]]:
    """Each epoll of a process that reports some of these sockets as readable, and which."""
    for epoll, watches in epolls_of(pid).items():
        if watched := {watch.inode for watch in watches if watch.events & select.EPOLLIN} & inodes:
            yield epoll, watched


def _waiting(process: Process, epolls: set[int]) -> set[tuple[int, Worker]]:
    """Who waits in which epoll. Of several threads that is seen only while they wait."""
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
    """The epoll in which a thread waits now (proc(5), /proc/PID/syscall)."""
    try:
        number, *arguments = Path(f"/proc/{pid}/task/{thread}/syscall").read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    if number == "running" or int(number) not in _WAITS.get(platform.machine(), set()):
        return None
    return int(arguments[0], 16)
