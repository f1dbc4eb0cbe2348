"""Find the server that the user names by its name or by the number of one of its processes."""

import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from fastsocket.measure.listeners import Listeners
from fastsocket.measure.reading import sockets_of
from fastsocket.printable import printable
from fastsocket.processes import Process, family, numbers, status_of, user_of
from fastsocket.servers import Ended, OutOfReach
from fastsocket.users import user_name

_NUMBER = re.compile(r"[0-9]{1,7}")
SHOWN = 5  # a message lists at most so many servers of the same name


class NoSuchServer(Exception):
    """There is no such process or server, or there are several; the message says which."""

    exit_status = 2


@dataclass(frozen=True)
class Target:
    """A server. process: its first process, from which its other processes descend."""

    process: Process
    name: str

    @property
    def pid(self) -> int:
        return self.process.pid

    def processes(self) -> list[int]:
        """The process numbers of the server. Raises Ended."""
        self.check()
        return family(self.pid)

    def check(self) -> None:
        """Raises Ended when the server's first process has ended."""
        if not self.process.lives():
            raise Ended(f"{self.name}, process {self.pid}, has ended meanwhile: start it and measure again")


def find(text: str) -> Target:
    """The server with this name or process number. Raises NoSuchServer, Ended; OutOfReach for another user's server."""
    pid = _first_of(int(text)) if _NUMBER.fullmatch(text) else _called(text)
    try:
        process = Process.at(pid)
        _check_owner(pid)
    except OSError as error:
        raise Ended(f"process {pid} has just ended") from error
    return Target(process, printable(_name(pid)))


def _first_of(pid: int) -> int:
    """The first process of the server that a process belongs to: the furthest ancestor that is of the same server."""
    if not _name(pid):
        raise NoSuchServer(f"there is no process {pid}: name another one, or the server, as in nginx")
    while _are_one_server(pid, parent := _parent(pid)):
        pid = parent
    return pid


def _are_one_server(pid: int, parent: int) -> bool:
    """Whether a process and its parent belong to one server: same name, and the same command or a listener in common.

    The name alone is not enough: a supervisor in Python has the same name as the servers that it starts.
    """
    if _name(pid) != _name(parent):
        return False
    return _command(pid) == _command(parent) or bool(_listening(pid) & _listening(parent))


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _listening(pid: int) -> set[int]:
    """The inodes of the listeners that a process has open; an empty set where we may not look into it."""
    with suppress(OSError, OutOfReach), Listeners(pid) as listeners:
        return set(listeners.read()) & sockets_of([pid])
    return set()


def _called(name: str) -> int:
    """The first process of the only server with this name. Raises NoSuchServer for none, and for several."""
    first = sorted({_first_of(pid) for pid in numbers("/proc") if name in _names(pid) and pid != os.getpid()})
    if not first:
        raise NoSuchServer(f"no process is called {name!r}: ps -e shows the names")
    if len(first) > 1:
        some = ", ".join(map(str, first[:SHOWN])) + (", …" if len(first) > SHOWN else "")
        raise NoSuchServer(f"{len(first)} servers are called {name}: name one by its process, of {some}")
    return first[0]


def _name(pid: int) -> str:
    """The name of a process; empty where there is no such process."""
    return _status(pid).get("Name", "")


def _names(pid: int) -> set[str]:
    """The names by which people may know a process: its own name, and the file name of its program."""
    names = {_name(pid)}
    with suppress(OSError):
        names.add(Path(os.readlink(f"/proc/{pid}/exe")).name)
    return names - {""}


def _parent(pid: int) -> int:
    return int(_status(pid).get("PPid", 0))


def _status(pid: int) -> dict[str, str]:
    try:
        return status_of(Path(f"/proc/{pid}"))
    except OSError:
        return {}


def _check_owner(pid: int) -> None:
    """Raises OutOfReach for another user's process, and OSError for a process that has ended."""
    owner = user_of(pid)
    if os.geteuid() not in (0, owner):
        raise OutOfReach(f"process {pid} belongs to {user_name(owner)}: run this with sudo, or as {user_name(owner)}")
