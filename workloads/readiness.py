"""Whether a server waits for connections, as the kernel tells it: which epolls hold a listener."""

import os
import re
from itertools import takewhile
from pathlib import Path

from workloads.process import family

TCP_LISTEN = "0A"


def listening_inodes(port: int, pid: int | str = "self") -> set[str]:
    """Of the TCP sockets that listen on a port in the network namespace of a process (proc(5), /proc/PID/net/tcp)."""
    listeners = _listeners(Path(f"/proc/{pid}/net/tcp")) + _listeners(Path(f"/proc/{pid}/net/tcp6"))
    return {fields[9] for fields in listeners if int(fields[1].rpartition(":")[2], 16) == port}


def _listeners(table: Path) -> list[list[str]]:
    """They come first (Documentation/networking/proc_net_tcp.rst), and after a load many thousands in TIME_WAIT."""
    with table.open() as lines:
        next(lines)  # the heading
        return list(takewhile(lambda fields: fields[3] == TCP_LISTEN, map(str.split, lines)))


def watchers(pid: int, port: int) -> int:
    """How many epolls of a process and its descendants hold a listener of that port (proc(5), fdinfo).

    An epoll inside another one is not counted: libfsocket.so makes such epolls, its bells.
    """
    try:
        listeners = {f"{int(inode):x}" for inode in listening_inodes(port, pid)}
    except FileNotFoundError:  # it has ended
        return 0
    return sum(bool(listeners & inodes) for member in family(pid) for inodes in _watched_inodes(member))


def watched(pid: int) -> dict[str, dict[str, str]]:
    """Of each epoll of a process, by its descriptor: what it watches, descriptor and inode (in hexadecimal)."""
    return {
        epoll: dict(re.findall(r"^tfd: +(\d+) .* ino:([0-9a-f]+)", text, re.MULTILINE))
        for epoll, text in _epolls(pid).items()
    }


def _watched_inodes(pid: int) -> list[set[str]]:
    """Of each epoll of a process."""
    all_watched = watched(pid)
    inside = {descriptor for inodes in all_watched.values() for descriptor in inodes}
    return [set(inodes.values()) for epoll, inodes in all_watched.items() if epoll not in inside]


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
