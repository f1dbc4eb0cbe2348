"""Processes and their threads, as /proc shows them. Each may end at any moment."""

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

_START = 22 - 3  # the place of starttime, field 22 of stat, in stat_fields(), which begins with field 3
_WATCH = re.compile(r"^tfd: +(\d+) events: +([0-9a-f]+) .* ino:([0-9a-f]+)", re.MULTILINE)


@dataclass(frozen=True)
class Process:
    """A process, known by its number and its start. The number alone is not enough: the kernel may use it again."""

    pid: int
    start: int  # in clock ticks since boot

    @classmethod
    def at(cls, pid: int) -> "Process":
        """The process that has this number now. Raises ProcessLookupError when there is none."""
        try:
            return cls(pid, int(stat_fields(f"/proc/{pid}")[_START]))
        except FileNotFoundError:
            raise ProcessLookupError(f"no process {pid}") from None

    def lives(self) -> bool:
        try:
            return Process.at(self.pid) == self
        except ProcessLookupError:
            return False


def numbers(directory: str) -> list[int]:
    """The names in a directory of /proc that are numbers; an empty list if the directory has just gone."""
    try:
        return [int(name) for name in os.listdir(directory) if name.isdecimal()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def children(pid: int) -> list[int]:
    """The pids of the children that any thread of a process has; an empty list if the process has ended."""
    return [child for thread in numbers(f"/proc/{pid}/task") for child in _children_by(pid, thread)]


def _children_by(pid: int, thread: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{thread}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def family(pid: int) -> list[int]:
    """The pids of a process and of all its descendants."""
    found = [pid]
    for member in found:
        found += children(member)
    return found


def user_of(pid: int) -> int:
    """The user of a process. Raises OSError for a process that has ended.

    The owner of /proc/PID alone is not enough: it is root for a process that may not be dumped, and every process can
    set that for itself (proc(5)).
    """
    owner = os.stat(f"/proc/{pid}").st_uid
    return owner or int(status_of(Path(f"/proc/{pid}"))["Uid"].split()[0])


def status_of(directory: Path) -> dict[str, str]:
    """The fields of the file status in the /proc directory of a process or thread, by name.

    Only line feeds end a line, because a process's name may hold any other line separator. Raises OSError when the
    process or thread has ended.
    """
    lines = (directory / "status").read_text(errors="replace").split("\n")
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


def stat_fields(directory: str) -> list[str]:
    """The fields of the file stat in the /proc directory of a process or thread, from the third field on (proc(5)).

    They are found behind the last parenthesis, because the name before it may hold any character. Raises
    FileNotFoundError or ProcessLookupError when the process or thread has ended.
    """
    with open(f"{directory}/stat", errors="replace") as file:  # making a Path takes longer than the kernel's read
        return file.read().rpartition(")")[2].split()


class Watch(NamedTuple):
    """One entry of an epoll: the descriptor that it watches, the events, and the inode of the descriptor's file."""

    descriptor: int
    events: int
    inode: int


def epolls_of(pid: int) -> dict[int, list[Watch]]:
    """What each epoll of a process watches, by the epoll's descriptor (proc(5), fdinfo)."""
    try:
        return {
            number: [
                Watch(int(descriptor), int(events, 16), int(inode, 16))
                for descriptor, events, inode in _WATCH.findall(Path(f"/proc/{pid}/fdinfo/{number}").read_text())
            ]
            for number, what in descriptors(pid)
            if what == "anon_inode:[eventpoll]"
        }
    except (FileNotFoundError, ProcessLookupError):
        return {}


def epolls_with(inodes: set[int], processes: Iterable[int]) -> int:
    """How many epolls of these processes watch one of these files.

    An epoll inside another one is not counted: libfsocket.so makes such epolls, its bells.
    """
    return sum(not inodes.isdisjoint(held) for pid in processes for held in _outermost(epolls_of(pid)))


def _outermost(epolls: dict[int, list[Watch]]) -> list[set[int]]:
    """The inodes that each epoll watches, without the epolls that another epoll watches."""
    inside = {watch.descriptor for watches in epolls.values() for watch in watches}
    return [{watch.inode for watch in watches} for epoll, watches in epolls.items() if epoll not in inside]


def descriptors(pid: int) -> Iterator[tuple[int, str]]:
    """Each descriptor of a process and what it refers to, such as (5, "socket:[4711]").

    A process that has ended has none. Raises PermissionError.
    """
    for number in numbers(f"/proc/{pid}/fd"):
        try:
            yield number, os.readlink(f"/proc/{pid}/fd/{number}")
        except FileNotFoundError:
            continue


def sockets(pid: int) -> Iterator[tuple[int, int]]:
    """Each descriptor of a process that is a socket, and the socket's inode. Raises PermissionError."""
    for number, what in descriptors(pid):
        if what.startswith("socket:["):
            yield number, int(what[8:-1])
