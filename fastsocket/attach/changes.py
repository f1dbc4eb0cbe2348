"""The single changes that attach makes in a server, and how each change is put back."""

import ctypes
import errno
import os
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import Any

from fastsocket.attach.plan import CannotAttach
from fastsocket.processes import Process, numbers, sockets

NO_CPU = -1  # SO_INCOMING_CPU of a listener to which none was given
_PIDFD_GETFD = 438  # the system call's number on all machines: include/uapi/asm-generic/unistd.h
_libc = ctypes.CDLL(None, use_errno=True)

Note = Callable[["Change"], None]  # writes down a change that is about to be made
Held = Callable[[int], Mapping[int, int]]  # gives the socket descriptors of a process, as held_by() does


@dataclass(frozen=True)
class ListenerGiven:
    """A listener gets the connections of a CPU."""

    holders: list[int]  # processes that have the listener, unless they have ended since
    inode: int
    before: int  # the CPU whose connections it had: NO_CPU, or one that attach gave it
    cpu: int

    def make(self, note: Note) -> None:
        """Raises CannotAttach."""
        with borrowed(self.holders, self.inode) as listener:
            if (was := _cpu_of(listener)) != self.before:
                raise CannotAttach(f"a listener belongs to CPU {was}: somebody else has set its SO_INCOMING_CPU")
            note(self)
            _give(listener, self.cpu)

    def undo(self, held: Held) -> None:
        """Give the listener back its CPU of before, where the listener still exists and has the CPU that attach set.

        All processes are searched for the listener: after an upgrade of the server, another process may have it.
        """
        with suppress(CannotAttach), borrowed([*self.holders, *numbers("/proc")], self.inode, held) as listener:
            if _cpu_of(listener) == self.cpu:
                _give(listener, self.before)


def _cpu_of(listener: socket.socket) -> int:
    return listener.getsockopt(socket.SOL_SOCKET, socket.SO_INCOMING_CPU)


def _give(listener: socket.socket, cpu: int) -> None:
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_INCOMING_CPU, cpu)


@dataclass(frozen=True)
class WorkerPinned:
    """A worker thread is confined to a CPU."""

    process: Process
    thread: int
    cpu: int
    before: list[int]

    def make(self, note: Note) -> None:
        """Raises CannotAttach."""
        note(self)
        try:
            if not self._is_there():
                raise ProcessLookupError(errno.ESRCH, "it has ended")
            os.sched_setaffinity(self.thread, {self.cpu})
        except OSError as error:
            raise CannotAttach(f"cannot pin thread {self.thread}: {error.strerror}") from error

    def undo(self, held: Held) -> None:
        with suppress(ProcessLookupError):
            if self._is_there() and os.sched_getaffinity(self.thread) == {self.cpu}:
                os.sched_setaffinity(self.thread, self.before)

    def _is_there(self) -> bool:
        return self.process.lives() and self.thread in numbers(f"/proc/{self.process.pid}/task")


Change = ListenerGiven | WorkerPinned


def written(change: Change) -> dict[str, Any]:
    """A change as fields for JSON, which read() takes back."""
    return {"kind": type(change).__name__, **asdict(change)}


def read(fields: dict[str, Any]) -> Change:
    """The change whose fields written() gave. Raises KeyError, TypeError for other fields."""
    kind, fields = fields["kind"], {name: value for name, value in fields.items() if name != "kind"}
    if kind == "WorkerPinned":
        return WorkerPinned(**{**fields, "process": Process(**fields["process"])})
    return ListenerGiven(**fields)


def held_by(process: int) -> dict[int, int]:
    """The socket descriptors of a process, by inode; an empty dict where we may not look into the process."""
    with suppress(PermissionError):
        return {inode: number for number, inode in sockets(process)}
    return {}


@contextmanager
def borrowed(processes: Iterable[int], inode: int, held: Held = held_by) -> Iterator[socket.socket]:
    """Copy a listener's descriptor from one of these processes, and close the copy at the end of the with block.

    The copy must not stay open, because a listener lives as long as any copy of it. Raises CannotAttach, also when none
    of these processes has that listener.
    """
    for process in processes:
        number = held(process).get(inode)
        if number is not None and (copy := _copied(process, number, inode)):
            with copy:
                yield copy
            return
    raise CannotAttach("a listener was closed meanwhile")


def _copied(process: int, number: int, inode: int) -> socket.socket | None:
    """A copy of a process's descriptor; None where the process has ended, or the number is no longer that socket's.

    Raises CannotAttach without the privilege.
    """
    try:
        pidfd = os.pidfd_open(process)
    except ProcessLookupError:
        return None
    try:
        copy = _libc.syscall(_PIDFD_GETFD, pidfd, number, 0)
        code = ctypes.get_errno()
    finally:
        os.close(pidfd)
    if copy < 0 and code == errno.EPERM:
        raise CannotAttach(f"may not take descriptors of process {process}: it takes root, or CAP_SYS_PTRACE")
    if copy < 0:
        return None
    if os.readlink(f"/proc/self/fd/{copy}") == f"socket:[{inode}]":
        return socket.socket(fileno=copy)
    os.close(copy)
    return None
