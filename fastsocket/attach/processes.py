"""Processes by identity, their descendants and threads, and what their descriptors are, as proc(5) tells."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_PARENT, _START = 4 - 3, 22 - 3  # fields of /proc/PID/stat, without the first two


@dataclass(frozen=True)
class Process:
    """A process number may be used again; with its start the process is known for certain."""

    pid: int
    start: int  # in clock ticks since boot

    @classmethod
    def at(cls, pid: int) -> "Process":
        """Raises ProcessLookupError when there is none."""
        return cls(pid, int(_stat(pid)[_START]))

    def lives(self) -> bool:
        try:
            return Process.at(self.pid) == self
        except ProcessLookupError:
            return False


def _stat(pid: int) -> list[str]:
    """The fields behind the name, which may hold anything."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except FileNotFoundError:
        raise ProcessLookupError(f"no process {pid}") from None


def family(pid: int) -> list[Process]:
    """A process and its descendants that live."""
    try:
        found, children = [Process.at(pid)], Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except (ProcessLookupError, FileNotFoundError):
        return []
    return found + [member for child in children for member in family(int(child))]


def parent_of(pid: int) -> int:
    """0: it has none, or has ended."""
    try:
        return int(_stat(pid)[_PARENT])
    except ProcessLookupError:
        return 0


def threads(pid: int) -> list[int]:
    """Those of a process that has ended are none."""
    try:
        return sorted(int(name) for name in os.listdir(f"/proc/{pid}/task"))
    except FileNotFoundError:
        return []


def descriptors(pid: int) -> Iterator[tuple[int, str]]:
    """Each descriptor of a process and what it is, as in (5, "socket:[4711]"). Raises PermissionError."""
    try:
        names = os.listdir(f"/proc/{pid}/fd")
    except FileNotFoundError:
        return
    for name in names:
        try:
            yield int(name), os.readlink(f"/proc/{pid}/fd/{name}")
        except FileNotFoundError:
            continue
