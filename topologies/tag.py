"""The mark by which all that a run made is found again, even after a SIGKILL.

A run owns a directory in REGISTRY, named after the run, with a lock that the kernel drops when its process ends. The
mount namespace of each host of the run carries a mount whose source is the run's tag, so /proc/PID/mountinfo tells
of every process whether it belongs to a run, also of those that overwrite their environment, as nginx does.
Network namespaces, links, filters and sysctls live in those hosts and go with their last process.
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

REGISTRY = Path("/run/fastsocket-lab")
LOCK = "lock"
GRACE_SECONDS = 5


@dataclass(frozen=True)
class Leftover:
    """What a run that no longer lives left behind."""

    tag: str
    directory: Path
    pids: list[int]


class RunTag:
    """A live run: its tag, and a scratch directory for the files that its servers need.

    Use as a context manager; leaving removes the directory. Raises OSError when REGISTRY cannot be written.
    """

    def __init__(self):
        self.directory = REGISTRY / secrets.token_hex(8)
        self.tag = _tag(self.directory)
        self.mount_point = self.directory / "tag"
        REGISTRY.mkdir(mode=0o755, exist_ok=True)
        self.directory.mkdir(mode=0o755)
        self._lock = open(self.directory / LOCK, "w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self.mount_point.mkdir()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        shutil.rmtree(self.directory)
        self._lock.close()
        with suppress(OSError):  # another run's directory is still there
            REGISTRY.rmdir()


def _tag(directory: Path) -> str:
    return f"fastsocket-lab:{directory.name}"


def _is_abandoned(directory: Path) -> bool:
    try:
        with open(directory / LOCK) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return True  # killed between mkdir and lock, or between rmtree's steps
    except BlockingIOError:
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
    """Every run that ended without cleaning up."""
    if not REGISTRY.is_dir():
        return []
    abandoned = [directory for directory in sorted(REGISTRY.iterdir()) if _is_abandoned(directory)]
    return [Leftover(_tag(directory), directory, processes_of(_tag(directory))) for directory in abandoned]


def remove(leftover: Leftover) -> None:
    """Kill the processes of a dead run, wait until they are gone, then remove its directory.

    The pid is checked again behind its pidfd, so that a number that was reused meanwhile is not touched.
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
    shutil.rmtree(leftover.directory, ignore_errors=True)
    with suppress(OSError):
        REGISTRY.rmdir()
