"""A run's tag: the mark by which everything that the run made is found again, even after a SIGKILL.

A run owns a directory in REGISTRY, and beside it a lock that the kernel drops when the run's process ends. The mount
namespace of each host of the run has a mount whose source is the tag. So /proc/PID/mountinfo says for every process
whether it belongs to a run, also for processes that overwrite their environment, as nginx does. Network namespaces,
links, filters and sysctls live in those hosts, and end with the hosts' last processes.
"""

import fcntl
import os
import secrets
import select
import shutil
import signal
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from fastsocket.steering.journal import Journal

REGISTRY = Path("/run/fastsocket-lab")
LOCK_SUFFIX = ".lock"
JOURNAL = ".journal"  # the suffix of files in a run's directory that hold the machine's settings before a change
GRACE_SECONDS = 5


@dataclass(frozen=True)
class Leftover:
    """What a run left behind, when it ended without cleaning up."""

    tag: str
    directory: Path
    pids: list[int]


class RunTag:
    """A live run: its tag, and a scratch directory for the files that its servers need.

    Use it as a context manager: the end of the with block removes the directory. Raises OSError when REGISTRY cannot be
    written.
    """

    def __init__(self) -> None:
        self.directory = REGISTRY / secrets.token_hex(8)
        self.tag = _tag(self.directory)
        self.mount_point = self.directory / "tag"
        REGISTRY.mkdir(mode=0o755, exist_ok=True)
        self._lock = _appear_locked(_lock_of(self.directory))
        self.directory.mkdir(mode=0o755)  # others must not write here: a journal in it is acted on later
        self.mount_point.mkdir()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        _remove_files(self.directory)
        os.close(self._lock)


def _lock_of(directory: Path) -> Path:
    return directory.with_suffix(LOCK_SUFFIX)


def _appear_locked(path: Path) -> int:
    """Make a file that is locked from the moment others can see it (open(2), O_TMPFILE). Returns its descriptor."""
    descriptor = os.open(path.parent, os.O_TMPFILE | os.O_RDWR, 0o644)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    # src_dir_fd, ignored for an absolute path, makes Python call linkat(), which alone follows the link in /proc.
    os.link(f"/proc/self/fd/{descriptor}", path, src_dir_fd=descriptor, follow_symlinks=True)
    return descriptor


def _remove_files(directory: Path) -> None:
    """Remove a run's directory, and then its lock. While there are files, the lock says whether their run lives."""
    shutil.rmtree(directory, ignore_errors=True)
    _lock_of(directory).unlink(missing_ok=True)
    with suppress(OSError):  # another run is registered
        REGISTRY.rmdir()


def _tag(directory: Path) -> str:
    return f"fastsocket-lab:{directory.name}"


def _is_abandoned(lock: Path) -> bool:
    try:
        with open(lock) as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (FileNotFoundError, BlockingIOError):  # the lock's run has just ended in order, or still lives
        return False
    return True


def _carries(pid: str, tag: str) -> bool:
    """Whether the process sees a mount whose source is the tag (proc(5): the field after " - TYPE ")."""
    with suppress(OSError):  # it has just ended
        for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines():
            if line.partition(" - ")[2].split(" ")[1:2] == [tag]:
                return True
    return False


def processes_of(tag: str) -> list[int]:
    """The pids of all processes inside the hosts of a run."""
    return [int(entry) for entry in os.listdir("/proc") if entry.isdigit() and _carries(entry, tag)]


def leftovers() -> list[Leftover]:
    """The leftovers of every run that ended without cleaning up."""
    abandoned = [lock.with_suffix("") for lock in sorted(REGISTRY.glob(f"*{LOCK_SUFFIX}")) if _is_abandoned(lock)]
    return [Leftover(_tag(directory), directory, processes_of(_tag(directory))) for directory in abandoned]


def remove(leftover: Leftover) -> None:
    """Kill the processes of a dead run, wait until they are gone, put settings back, then remove its directory.

    Each process is checked again once its pidfd is open, so that a process that got a reused number is not killed.
    """
    for pid in leftover.pids:
        with suppress(ProcessLookupError):
            descriptor = os.pidfd_open(pid)
            try:
                if _carries(str(pid), leftover.tag):
                    signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                    select.select([descriptor], [], [], GRACE_SECONDS)
            finally:
                os.close(descriptor)
    for journal in leftover.directory.glob(f"*{JOURNAL}"):
        Journal.load(journal).undo()
    _remove_files(leftover.directory)
