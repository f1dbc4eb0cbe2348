"""What attach changes in a server, one at a time, and how each is put back."""

import ctypes
import errno
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import Any

from fastsocket.attach.plan import CannotAttach
from fastsocket.processes import Process, family, numbers, sockets

NO_CPU = -1  # SO_INCOMING_CPU of a listener to which none was given
_PIDFD_GETFD = 438  # on all machines: include/uapi/asm-generic/unistd.h
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class ListenerGiven:
    """A listener gets the connections of a CPU."""

    holders: list[Process]  # one of these, or of their descendants, has the listener
    inode: int
    before: int  # the CPU whose connections it had: NO_CPU, or one that attach gave it
    cpu: int

    def make(self, note: "Note") -> None:
        """Raises CannotAttach."""
        with borrowed(self.holders, self.inode) as listener:
            if (was := _cpu_of(listener)) != self.before:
                raise CannotAttach(f"a listener belongs to CPU {was}: somebody else has set its SO_INCOMING_CPU")
            note(self)
            _give(listener, self.cpu)

    def undo(self) -> None:
        """Where the listener is still there, and as we left it."""
        with suppress(CannotAttach), borrowed(self.holders, self.inode) as listener:
            if _cpu_of(listener) == self.cpu:
                _give(listener, self.before)


def _cpu_of(listener: socket.socket) -> int:
    return listener.getsockopt(socket.SOL_SOCKET, socket.SO_INCOMING_CPU)


def _give(listener: socket.socket, cpu: int) -> None:
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_INCOMING_CPU, cpu)


@dataclass(frozen=True)
class WorkerPinned:
    """A thread is confined to a CPU."""

    process: Process
    thread: int
    cpu: int
    before: list[int]

    def make(self, note: "Note") -> None:
        """Raises CannotAttach."""
        note(self)
        try:
            os.sched_setaffinity(self.thread, {self.cpu})
        except OSError as error:
            raise CannotAttach(f"cannot pin thread {self.thread}: {error.strerror}") from error

    def undo(self) -> None:
        with suppress(ProcessLookupError):
            if self._is_there() and os.sched_getaffinity(self.thread) == {self.cpu}:
                os.sched_setaffinity(self.thread, self.before)

    def _is_there(self) -> bool:
        return self.process.lives() and self.thread in numbers(f"/proc/{self.process.pid}/task")


Change = ListenerGiven | WorkerPinned
Note = Callable[[Change], None]  # writes down what is about to be changed


def written(change: Change) -> dict[str, Any]:
    """For a file."""
    return {"kind": type(change).__name__, **asdict(change)}


def read(fields: dict[str, Any]) -> Change:
    """What written() gave. Raises KeyError, TypeError when it is something else."""
    kind, fields = fields["kind"], {name: value for name, value in fields.items() if name != "kind"}
    if kind == "ListenerGiven":
        fields["holders"] = [Process(**holder) for holder in fields["holders"]]
    else:
        fields["process"] = Process(**fields["process"])
    made: Change = {"ListenerGiven": ListenerGiven, "WorkerPinned": WorkerPinned}[kind](**fields)
    return made


@contextmanager
def borrowed(holders: list[Process], inode: int) -> Iterator[socket.socket]:
    """A copy of a descriptor of the server's, for a moment: a listener lives as long as any copy of it.

    Raises CannotAttach, also when no process of the server has that socket any more.
    """
    with ExitStack() as stack:
        for process in (member for holder in holders if holder.lives() for member in family(holder.pid)):
            for number, found in sockets(process):
                if found == inode and (copy := _copied(process, number, inode)):
                    yield stack.enter_context(copy)
                    return
        raise CannotAttach("a listener was closed meanwhile")


def _copied(process: int, number: int, inode: int) -> socket.socket | None:
    """None: the process has ended, or the number means something else by now."""
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
    found = socket.socket(fileno=copy)
    if os.fstat(found.fileno()).st_ino != inode:
        found.close()
        return None
    return found
