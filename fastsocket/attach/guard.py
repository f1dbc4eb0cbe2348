"""The guard: a process that puts all changes back when the attaching process ends, however that process ends.

The guard notes each change in a file before attach makes it. The guard holds a lock on that file, by which the kernel
tells other processes the guard's process id. When an attach was killed together with its guard, the file lists the
changes that are still to be put back.
"""

import fcntl
import json
import os
import select
import signal
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import NoReturn

from fastsocket.attach.changes import Change, held_by, read, written
from fastsocket.attach.plan import CannotAttach
from fastsocket.steering import private

STATE = Path("/run/fastsocket/attach")
UNDO_SECONDS = 10
_LOCK = "hhqqi4x"  # struct flock of fcntl(2), on 64-bit Linux
_READY, _NOTED = b"ready\n", b"noted\n"


class Guard:
    """The guard as the attaching process sees it: its process, and a socket to it."""

    def __init__(self, pid: int, line: socket.socket):
        self.pidfd = os.pidfd_open(pid)
        self._line, self._answers, self._pid = line, line.makefile("rb"), pid

    def make(self, change: Change) -> None:
        """Make a change, once the guard has noted it. Raises CannotAttach, also where the guard has been killed."""
        change.make(self._note)

    def _note(self, change: Change) -> None:
        with suppress(OSError):
            self._line.sendall(json.dumps(written(change)).encode() + b"\n")
        self.wait_for(_NOTED)

    def wait_for(self, answer: bytes) -> None:
        """Wait for this answer of the guard. Raises CannotAttach when the guard says something else, or has ended."""
        try:
            said = self._answers.readline()
        except OSError:
            said = b""
        if said != answer:
            raise CannotAttach(said.decode().strip() or "its guard has ended")

    def end(self) -> bool:
        """Let the guard put all changes back, and wait for its end. True: it has put all of them back."""
        self._answers.close()
        self._line.close()
        os.close(self.pidfd)
        return os.waitpid(self._pid, 0)[1] == 0


@contextmanager
def guarded(pid: int) -> Iterator[Guard]:
    """Start a guard for the changes to a server, and end it with the with block. pid: the server's process id.

    Raises CannotAttach when another attach has that server, Refused where the notes cannot be kept.
    """
    ours, theirs = socket.socketpair()
    with private.directory(STATE, make=True):
        child = os.fork()
        if not child:
            ours.close()
            _guard(pid, theirs)
        theirs.close()
    guard = Guard(child, ours)
    try:
        guard.wait_for(_READY)
    except CannotAttach:
        guard.end()
        raise
    try:
        yield guard
    finally:
        if not guard.end():
            put_back(pid)


def _guard(pid: int, line: socket.socket) -> NoReturn:
    """Run the guard in the forked child. Never returns, and raises nothing."""
    status = 1
    try:
        os.setsid()
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, lambda *_: line.shutdown(socket.SHUT_RD))
        status = _keep(pid, line)
    except Exception as error:
        with suppress(OSError):
            line.sendall(f"its guard has ended: {error}\n".encode())
    finally:
        os._exit(status)


def _keep(pid: int, line: socket.socket) -> int:
    with _locked(pid, os.O_CREAT) as (parent, notes, holder):
        if holder:
            line.sendall(f"attached already, by process {holder}: fastsocket detach {pid}\n".encode())
            return 1
        _undo(notes)  # puts back what an earlier attach changed that was killed together with its guard
        # The attaching process may be killed at any moment: then too its changes are put back.
        with open(notes, "ab", closefd=False) as file, suppress(ConnectionError):
            line.sendall(_READY)
            for change in line.makefile("rb"):
                file.write(change)
                file.flush()
                line.sendall(_NOTED)
        _undo(notes)
        os.unlink(str(pid), dir_fd=parent)
    return 0


@contextmanager
def _locked(pid: int, flags: int = 0) -> Iterator[tuple[int, int, int]]:
    """Open the notes on a server, and try to lock them. Raises FileNotFoundError, Refused.

    Yields the directory's descriptor, the descriptor of the notes, and the process that holds the lock: 0 when we hold
    it. The kernel drops this kind of lock when any descriptor of the file is closed, so this process opens only one.
    """
    file = STATE / str(pid)
    with private.directory(STATE) as parent:
        while True:
            with private.opened(file, os.O_RDWR | flags, parent) as notes:
                holder = _lock(notes)
                if holder or os.fstat(notes).st_nlink:  # without a link, the file was removed before we had the lock
                    yield parent, notes, holder
                    return


def _lock(notes: int) -> int:
    """Lock the notes and return 0, or return the id of the process that holds the lock, as the kernel tells it."""
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
    """Put all noted changes back, the newest first. A noted change may not have been made; undo() allows for that."""
    *lines, _ = os.pread(notes, os.fstat(notes).st_size, 0).decode().split("\n")
    held = cache(held_by)  # the descriptors of each process are read only once
    for line in reversed(lines):
        read(json.loads(line)).undo(held)
    os.ftruncate(notes, 0)


def put_back(pid: int) -> bool:
    """End the attach to a server, and wait until every change is put back. False: the server has no attach.

    Raises Refused, and CannotAttach when the guard takes longer than UNDO_SECONDS.
    """
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
