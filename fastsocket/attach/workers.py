"""Which worker watches which listener of a server, and on which CPUs it may run."""

import os
import platform
import re
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from fastsocket.attach.processes import Process, descriptors, family, parent_of, threads

_LISTEN = "0A"  # include/net/tcp_states.h
_READABLE = 0x1  # EPOLLIN
_WATCHED = re.compile(r"^tfd: +\d+ events: +([0-9a-f]+) .* ino:([0-9a-f]+)", re.MULTILINE)
# Their numbers (epoll_wait, epoll_pwait, epoll_pwait2): arch/x86/entry/syscalls/syscall_64.tbl; asm-generic/unistd.h.
_WAITS = {"x86_64": {232, 281, 441}, "aarch64": {22, 441}}
_LOOKS, _PAUSE_SECONDS = 500, 0.002  # at threads that run at each look


@dataclass(frozen=True)
class Worker:
    """A thread that waits for connections."""

    process: Process
    thread: int

    def cpus(self) -> set[int]:
        """Where it may run. Raises ProcessLookupError."""
        return os.sched_getaffinity(self.thread)


@dataclass(frozen=True)
class Listener:
    """A TCP socket that listens, with the workers that watch it."""

    inode: int
    address: str  # as in "127.0.0.1:80" and "[::]:80"
    workers: frozenset[Worker]
    is_ours: bool  # a process of the server has it


def listeners(pid: int) -> list[Listener]:
    """All in the server's network namespace whose address is also that of a listener of the server.

    pid: the process that the others descend from. Raises PermissionError.
    """
    members = family(pid)
    if not members:
        return []
    addresses = _listening(pid)
    held = {inode for member in members for inode in _sockets(member.pid) if inode in addresses}
    watching = _watchers(members, held)
    served = {addresses[inode] for inode in held}
    return [
        Listener(inode, address, frozenset(watching.get(inode, ())), inode in held)
        for inode, address in sorted(addresses.items())
        if address in served
    ]


def server_of(pid: int) -> int:
    """The ancestor that has listeners of the process, too, such as the master of a worker. Raises PermissionError."""
    listening = _listening(pid)
    held = listening.keys() & set(_sockets(pid))
    while (parent := parent_of(pid)) > 1 and held & set(_sockets(parent)):
        pid = parent
    return pid


def _listening(pid: int) -> dict[int, str]:
    """Each listener of the process's network namespace: its inode and address."""
    return {
        int(fields[9]): _address(fields[1])
        for table in ("tcp", "tcp6")
        for fields in _rows(Path(f"/proc/{pid}/net/{table}"))
    }


def _rows(table: Path) -> list[list[str]]:
    """Listeners come first (Documentation/networking/proc_net_tcp.rst)."""
    with table.open() as lines:
        next(lines)  # the heading
        return list(takewhile(lambda fields: fields[3] == _LISTEN, map(str.split, lines)))


def _address(text: str) -> str:
    """Of "0100007F:0050", whose words are in the machine's order of bytes."""
    words, _, port = text.partition(":")
    packed = b"".join(struct.pack("=I", int(words[at : at + 8], 16)) for at in range(0, len(words), 8))
    if len(packed) == 4:
        return f"{socket.inet_ntop(socket.AF_INET, packed)}:{int(port, 16)}"
    return f"[{socket.inet_ntop(socket.AF_INET6, packed)}]:{int(port, 16)}"


def _sockets(pid: int) -> Iterator[int]:
    for _, what in descriptors(pid):
        if what.startswith("socket:["):
            yield int(what[8:-1])


def _watchers(members: list[Process], inodes: set[int]) -> dict[int, set[Worker]]:
    """Of each socket the workers whose epoll reports it as readable."""
    found: dict[int, set[Worker]] = {}
    for member in members:
        epolls = {epoll: watched for epoll, watched in _epolls(member.pid) if watched & inodes}
        for epoll, worker in _waiting(member, set(epolls)):
            for inode in epolls[epoll] & inodes:
                found.setdefault(inode, set()).add(worker)
    return found


def _epolls(pid: int) -> Iterator[tuple[int, set[int]]]:
    """Each epoll of a process and what it watches (proc(5), fdinfo)."""
    for descriptor, what in descriptors(pid):
        if what == "anon_inode:[eventpoll]":
            with suppress(FileNotFoundError):
                entries = _WATCHED.findall(Path(f"/proc/{pid}/fdinfo/{descriptor}").read_text())
                yield descriptor, {int(inode, 16) for events, inode in entries if int(events, 16) & _READABLE}


def _waiting(process: Process, epolls: set[int]) -> set[tuple[int, Worker]]:
    """Who waits in which epoll. Of several threads that is seen only while they wait."""
    found: set[tuple[int, Worker]] = set()
    if not epolls:
        return found
    members = threads(process.pid)
    if len(members) == 1:
        return {(epoll, Worker(process, members[0])) for epoll in epolls}
    for _ in range(_LOOKS):
        for thread in members:
            epoll = _waits_in(process.pid, thread)
            if epoll in epolls:
                found.add((epoll, Worker(process, thread)))
        if {epoll for epoll, _ in found} == epolls:
            break
        time.sleep(_PAUSE_SECONDS)
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
