"""Processes and their threads, as /proc shows them. Each may end at any moment."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_START = 22 - 3  # a field of /proc/PID/stat, without the first two


@dataclass(frozen=True)
class Process:
    """A process number may be used again; with its start the process is known for certain."""

    pid: int
    start: int  # in clock ticks since boot

    @classmethod
    def at(cls, pid: int) -> "Process":
        """Raises ProcessLookupError when there is none."""
        try:
            stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
        except FileNotFoundError:
            raise ProcessLookupError(f"no process {pid}") from None
        return cls(pid, int(stat.rpartition(")")[2].split()[_START]))  # its name, before that, may hold anything

    def lives(self) -> bool:
        try:
            return Process.at(self.pid) == self
        except ProcessLookupError:
            return False


def numbers(directory: str) -> list[int]:
    """The entries of a directory of /proc that are numbers; none if the directory has just gone."""
    try:
        return [int(name) for name in os.listdir(directory) if name.isdecimal()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def children(pid: int) -> list[int]:
    """The pids of a process's children; none if it has ended."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def family(pid: int) -> list[int]:
    """A process and its descendants."""
    return [pid] + [member for child in children(pid) for member in family(child)]


def user_of(pid: int) -> int:
    """Root owns the files of any process that may not be dumped, which each can say of itself (proc(5)). Raises OSError
    for a process that has ended."""
    owner = os.stat(f"/proc/{pid}").st_uid
    return owner or int(status_of(Path(f"/proc/{pid}"))["Uid"].split()[0])


def status_of(directory: Path) -> dict[str, str]:
    """Of a process's or a thread's directory. Raises OSError when that has ended."""
    lines = (directory / "status").read_text(errors="replace").splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


def watched_inodes(pid: int) -> list[set[str]]:
    """Of each epoll of a process, what it holds: inode numbers in hexadecimal (proc(5), fdinfo).

    An epoll inside another one is left out: libfsocket.so makes such epolls, its bells.
    """
    watched = {
        epoll: dict(re.findall(r"^tfd: +(\d+) .* ino:([0-9a-f]+)", text, re.MULTILINE))
        for epoll, text in epolls_of(pid).items()
    }
    inside = {descriptor for inodes in watched.values() for descriptor in inodes}
    return [set(inodes.values()) for epoll, inodes in watched.items() if epoll not in inside]


def epolls_of(pid: int) -> dict[str, str]:
    """Each epoll of a process: its descriptor, and what the kernel tells of it (proc(5), fdinfo)."""
    try:
        return {
            str(number): Path(f"/proc/{pid}/fdinfo/{number}").read_text()
            for number, what in descriptors(pid)
            if what == "anon_inode:[eventpoll]"
        }
    except (FileNotFoundError, ProcessLookupError):
        return {}


def descriptors(pid: int) -> Iterator[tuple[int, str]]:
    """Each descriptor of a process and what it is, as in (5, "socket:[4711]"); none of a process that has ended. Raises
    PermissionError."""
    for number in numbers(f"/proc/{pid}/fd"):
        try:
            yield number, os.readlink(f"/proc/{pid}/fd/{number}")
        except FileNotFoundError:
            continue
