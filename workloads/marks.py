"""Locality by hand, for servers with SO_REUSEPORT listeners of their own: the lab marks them once they listen.

The authors of a server would say it where they open a listener, in a line or two. Here the lab takes a descriptor of
the same socket (pidfd_getfd(2)) and sets the option there. Nothing is preloaded, and the server does not know.

Whose a listener is shows in what its threads wait for: /proc/PID/task/TID/syscall names the epoll, and fdinfo what that
epoll watches (proc(5)).
"""

import ctypes
import os
import platform
import socket
import struct
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import NamedTuple

from workloads import limits
from workloads.process import POLL_SECONDS, WorkloadError, family
from workloads.readiness import listening_inodes, watched
from workloads.variants import Mark

# Of <asm/unistd.h>, for which Python has no names.
PIDFD_GETFD = 438
EPOLL_WAITS = {"x86_64": ("232", "281", "441")}.get(platform.machine(), ("22", "441"))  # and epoll_pwait, epoll_pwait2
# Of <asm-generic/socket.h>.
SO_INCOMING_CPU, SO_ATTACH_REUSEPORT_CBPF = 49, 51
# Of <linux/filter.h>: load a word, jump if it equals, return; the CPU; no listener, so the kernel takes any.
LOAD, JUMP_IF, RETURN = 0x20, 0x15, 0x06
THE_CPU, NO_LISTENER = 0xFFFFF000 + 36, 0xFFFFFFFF


class Listener(NamedTuple):
    """A listener that one thread waits for."""

    process: int
    descriptor: int
    inode: str
    cpu: int  # on which that thread runs


def mark(how: Mark, pid: int, port: int) -> None:
    """The listeners of a server, once each has its worker. Raises WorkloadError when that does not come to be."""
    listeners = _found(pid, port)
    if how == "incoming-cpu":
        for one in listeners:
            with _opened(one) as ours:
                ours.setsockopt(socket.SOL_SOCKET, SO_INCOMING_CPU, one.cpu)
        return
    for group in _groups(listeners):
        with _opened(group[0]) as ours:
            _attach(ours, program([one.cpu for one in group]))


def program(cpus: list[int]) -> bytes:
    """Classic BPF: the i-th listener of a group for connections that come in on the i-th of these CPUs."""
    chosen = [code for index, cpu in enumerate(cpus) for code in (_code(JUMP_IF, cpu, if_not=1), _code(RETURN, index))]
    return b"".join([_code(LOAD, THE_CPU), *chosen, _code(RETURN, NO_LISTENER)])


def _code(code: int, value: int, if_not: int = 0) -> bytes:
    """struct sock_filter; if_not: how many to skip."""
    return struct.pack("=HBBI", code, 0, if_not, value)


def _attach(listener: socket.socket, code: bytes) -> None:
    text = ctypes.create_string_buffer(code, len(code))
    program_of = struct.pack("@HP", len(code) // 8, ctypes.addressof(text))  # struct sock_fprog
    listener.setsockopt(socket.SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, program_of)


def _found(pid: int, port: int) -> list[Listener]:
    """Each listener of the port, when a pinned thread waits for it."""
    deadline = time.monotonic() + limits.read().start_seconds
    while True:
        wanted = {f"{int(inode):x}" for inode in listening_inodes(port, pid)}
        found = {one.inode: one for one in _waited_for(pid) if one.inode in wanted}
        if wanted and found.keys() == wanted:
            return list(found.values())
        if time.monotonic() > deadline:
            raise WorkloadError(f"{len(wanted)} listeners, of which {len(found)} have a pinned thread that waits")
        time.sleep(POLL_SECONDS)


def _waited_for(pid: int) -> Iterator[Listener]:
    """All that pinned threads of a server wait for."""
    for member in family(pid):
        with suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
            epolls = watched(member)
            for task in map(int, os.listdir(f"/proc/{member}/task")):
                cpus = os.sched_getaffinity(task)
                for descriptor, inode in epolls.get(_epoll_of(member, task), {}).items() if len(cpus) == 1 else ():
                    yield Listener(member, int(descriptor), inode, *cpus)


def _epoll_of(process: int, task: int) -> str:
    """The descriptor that the thread waits for; none of a thread that runs, or waits for something else."""
    number, *arguments = Path(f"/proc/{process}/task/{task}/syscall").read_text().split()
    return str(int(arguments[0], 16)) if number in EPOLL_WAITS else ""


def _groups(listeners: list[Listener]) -> list[list[Listener]]:
    """Listeners of one address, in the order in which the server opened them: that is how the kernel counts them."""
    by_family = defaultdict(list)
    for one in sorted(listeners, key=lambda one: one.descriptor):
        with _opened(one) as ours:
            by_family[ours.family].append(one)
    return list(by_family.values())


def _opened(one: Listener) -> "closing[socket.socket]":
    """A descriptor of ours for the same socket."""
    libc, process = ctypes.CDLL(None, use_errno=True), os.pidfd_open(one.process)
    try:
        descriptor = libc.syscall(PIDFD_GETFD, process, one.descriptor, 0)
        if descriptor < 0:
            raise OSError(ctypes.get_errno(), f"pidfd_getfd: {os.strerror(ctypes.get_errno())}")
        return closing(socket.socket(fileno=descriptor))
    finally:
        os.close(process)
