"""A process that puts everything back when the one that changed it ends, however it ends.

Each change is noted in a file before it is made. The guard holds a lock on that file, by which the kernel tells others
who it is. Of an attach that was killed together with its guard, the file says what is left to put back.
"""

import fcntl
import json
import os
import select
import signal
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NoReturn

from fastsocket.attach.changes import Change, read, written
from fastsocket.attach.plan import CannotAttach
from fastsocket.steering import private

STATE = Path("/run/fastsocket/attach")
UNDO_SECONDS = 10
_LOCK = "hhqqi4x"  # struct flock of fcntl(2), on 64-bit Linux
_NOTED = b"noted\n"


class Guard:
    """Our end of it."""

    def __init__(self, pid: int, line: socket.socket):
        self.pidfd = os.pidfd_open(pid)
        self._line, self._pid = line, pid

    def make(self, change: Change) -> None:
        """Raises CannotAttach, also where the guard has been killed."""
        change.make(self._note)

    def _note(self, change: Change) -> None:
        try:
            self._line.sendall(json.dumps(written(change)).encode() + b"\n")
            answer = self._line.recv(len(_NOTED), socket.MSG_WAITALL)
        except OSError:
            answer = b""
        if answer != _NOTED:
            raise CannotAttach("its guard has ended")

    def end(self) -> None:
        """Everything is put back when this returns."""
        self._line.close()
        os.waitpid(self._pid, 0)
        os.close(self.pidfd)


@contextmanager
def guarded(pid: int) -> Iterator[Guard]:
    """A guard for the changes to a server. pid: the server's.

    Raises CannotAttach when another attach has that server, Refused where the notes cannot be kept.
    """
    ours, theirs = socket.socketpair()
    with private.directory(STATE, make=True):
        child = os.fork()
        if not child:
            ours.close()
            _guard(pid, theirs)
        theirs.close()
    with closing(ours):
        said = ours.makefile().readline().strip()
        if said:
            os.waitpid(child, 0)
            raise CannotAttach(said)
        guard = Guard(child, ours)
        try:
            yield guard
        finally:
            guard.end()
            put_back(pid)  # nothing, unless the guard was killed


def _guard(pid: int, line: socket.socket) -> NoReturn:
    """The child: it never returns, and raises nothing."""
    status = 1
    try:
        os.setsid()
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, lambda *_: line.shutdown(socket.SHUT_RD))
        status = _keep(pid, line)
    except Exception as error:
        print(f"fastsocket: the guard of process {pid}: {error}", file=sys.stderr)
    finally:
        os._exit(status)


def _keep(pid: int, line: socket.socket) -> int:
    with _locked(pid, os.O_CREAT) as (parent, notes, holder):
        if holder:
            line.sendall(f"attached already, by process {holder}: fastsocket detach {pid}\n".encode())
            return 1
        _undo(notes)  # of an attach that was killed together with its guard
        line.sendall(b"\n")
        for change in line.makefile("rb"):
            os.write(notes, change)
            line.sendall(_NOTED)
        _undo(notes)
        os.unlink(str(pid), dir_fd=parent)
    return 0


@contextmanager
def _locked(pid: int, flags: int = 0) -> Iterator[tuple[int, int, int]]:
    """The directory, the notes on a server, and who holds their lock: 0 when we do. Raises FileNotFoundError, Refused.

    The lock is of the kind that the kernel drops when any descriptor of the file is closed, so there is only one.
    """
    file = STATE / str(pid)
    with private.directory(STATE) as parent:
        while True:
            with private.opened(file, os.O_RDWR | flags, parent) as notes:
                holder = _lock(notes)
                if holder or os.fstat(notes).st_nlink:  # else it was removed before we had the lock
                    yield parent, notes, holder
                    return


def _lock(notes: int) -> int:
    """0, or the process that has it, as the kernel knows that."""
    while True:
        try:
            fcntl.lockf(notes, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return 0
        except (BlockingIOError, PermissionError):
            asked = struct.pack(_LOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
            kind, _, _, _, pid = struct.unpack(_LOCK, fcntl.fcntl(notes, fcntl.F_GETLK, asked))
            if kind != fcntl.F_UNLCK:
                return int(pid)


def _undo(notes: int) -> None:
    """The newest change first. A change may have been noted, and not made."""
    *lines, _ = os.pread(notes, private.MOST_BYTES, 0).decode().split("\n")
    for line in reversed(lines):
        read(json.loads(line)).undo()
    os.ftruncate(notes, 0)
    os.lseek(notes, 0, os.SEEK_SET)


def put_back(pid: int) -> bool:
    """End the attach to a server, and wait until everything is put back. False: there is none. Raises Refused."""
    try:
        with _locked(pid) as (parent, notes, holder):
            if not holder:
                _undo(notes)
                os.unlink(str(pid), dir_fd=parent)
                return True
    except FileNotFoundError:
        return False
    _end(holder)
    return True


def _end(guard: int) -> None:
    try:
        pidfd = os.pidfd_open(guard)
    except ProcessLookupError:
        return
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGTERM)
        if not select.select([pidfd], [], [], UNDO_SECONDS)[0]:
            raise CannotAttach(f"process {guard} does not put it back within {UNDO_SECONDS} s")
    finally:
        os.close(pidfd)
