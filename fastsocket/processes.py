"""Processes and their threads, as /proc shows them. Each may end at any moment."""

import os
import re
from pathlib import Path


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
        for epoll, text in _epolls(pid).items()
    }
    inside = {descriptor for inodes in watched.values() for descriptor in inodes}
    return [set(inodes.values()) for epoll, inodes in watched.items() if epoll not in inside]


def _epolls(pid: int) -> dict[str, str]:
    """By its descriptor, what the kernel tells of it."""
    try:
        return {
            entry.name: Path(f"/proc/{pid}/fdinfo/{entry.name}").read_text()
            for entry in Path(f"/proc/{pid}/fd").iterdir()
            if os.readlink(entry) == "anon_inode:[eventpoll]"
        }
    except (FileNotFoundError, ProcessLookupError):
        return {}
