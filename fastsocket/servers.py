"""The servers that run with libfsocket.so: found in /proc, each with the processes that share its memory."""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

from fastsocket.budget import Budget, Budgets, Spent
from fastsocket.printable import printable
from fastsocket.processes import status_of, user_of
from fastsocket.shared_memory import (
    Adopter,
    CpuCounters,
    Listener,
    Mapping,
    NotPreloaded,
    OtherVersion,
    SharedMemory,
    mapping_of,
)
from fastsocket.users import user_name

MOST_THREADS = 4096  # of a process in a container, whose threads have to be asked for their numbers


@dataclass(frozen=True)
class Server:
    """The processes that map one shared memory. Each lives, and its id is the one that the reader sees."""

    pid: int  # the process that the others descend from, such as the master
    command: str
    processes: list[int]
    listeners: list[Listener]
    counters: list[CpuCounters]


SHOWN = 5  # of a list in a remark


@dataclass
class Survey:
    """What a look at all processes found."""

    servers: list[Server] = field(default_factory=list)
    other_version: list[int] = field(default_factory=list)  # a process of each server whose library is not of our age
    out_of_reach: int = 0  # how many processes we were not allowed to look into
    left_out: dict[int, list[int]] = field(default_factory=dict)  # users, and their processes beyond what we look into

    def leave_out(self, user: int, pids: Iterable[int]) -> None:
        self.left_out.setdefault(user, []).extend(pids)

    def of(self, pids: list[int]) -> list[Server]:
        """The servers that any of these processes belongs to."""
        return [server for server in self.servers if not set(pids).isdisjoint(server.processes)]

    def remarks(self) -> list[str]:
        """What keeps this from being all that runs, a line each."""
        said = []
        if self.other_version:
            said.append(
                f"servers with another version of libfsocket.so, or with false shared memory: restart them; processes "
                f"{_some(self.other_version)}"
            )
        if self.left_out:
            users = [f"{len(pids)} of {user_name(uid)}" for uid, pids in self.left_out.items()]
            said.append(
                "processes that were left out, because all of their user take too long or have too much to "
                f"say: {_some(users)}; name some: fastsocket status PID"
            )
        if self.out_of_reach:
            said.append(f"processes that could not be looked into: {self.out_of_reach}; {remedy()}")
        return said


def _some(words: Sequence[object]) -> str:
    more = [f"and {len(words) - SHOWN} more"] if len(words) > SHOWN else []
    return ", ".join([*map(str, words[:SHOWN]), *more])


def remedy() -> str:
    """Where we may not look into a process."""
    return "run this with sudo" if os.geteuid() else "this root lacks CAP_SYS_PTRACE"


class Ended(Exception):
    """The process is not there, or not any more."""

    exit_status = 1


class OutOfReach(Exception):
    """We may not look into the process, or have looked into enough of its user's."""

    exit_status = 3


def absence(pid: int, found: Survey) -> Ended | NotPreloaded | OutOfReach:
    """Why a process belongs to no server that was seen."""
    if any(pid in pids for pids in found.left_out.values()):
        return OutOfReach(f"process {pid} was left out: its user has too many, or they say too much")
    try:
        with SharedMemory(pid):
            return NotPreloaded(f"process {pid} has begun to listen just now: ask again")
    except NotPreloaded as reason:
        return reason
    except PermissionError:
        return OutOfReach(f"process {pid} could not be looked into; {remedy()}")
    except OSError:
        return Ended(f"process {pid} has ended")


def survey(first: Sequence[int] = ()) -> Survey:
    """Look at every process. One that ends meanwhile is not there.

    first: the processes that matter most. Those of other users are looked into as far as their budgets go.
    """
    found, budgets = Survey(), Budgets(os.geteuid())
    for user, processes in _processes_by_memory(found, budgets, set(first)):
        budget, pids = budgets.of(user), list(processes)
        try:
            with budget.spending():
                found.servers.append(_server(processes, budget))
        except Spent:
            found.leave_out(user, pids)
        except OtherVersion:
            found.other_version.append(pids[0])
        except PermissionError:
            found.out_of_reach += len(pids)
        except (NotPreloaded, OSError):
            continue
    found.servers.sort(key=lambda server: server.pid)
    return found


def _processes_by_memory(found: Survey, budgets: Budgets, first: set[int]) -> list[tuple[int, dict[int, Mapping]]]:
    """The processes of each server, and the user whose budget pays for the look: its user with the lowest id."""
    groups: dict[int, tuple[int, dict[int, Mapping]]] = {}
    for user, pid in _by_user(first):
        try:
            with budgets.of(user).spending():
                mapping = mapping_of(pid)
            groups.setdefault(mapping.inode, (user, {}))[1][pid] = mapping
        except Spent:
            found.leave_out(user, [pid])
        except PermissionError:
            found.out_of_reach += 1
        except (NotPreloaded, OSError):
            continue
    return list(groups.values())


def _by_user(first: set[int]) -> list[tuple[int, int]]:
    """User and number of every process. System users come first, so that other users' processes cannot hide theirs."""
    found = []
    for pid in (int(name) for name in os.listdir("/proc") if name.isdecimal()):
        with suppress(OSError):
            found.append((user_of(pid), pid not in first, pid))
    return [(user, pid) for user, _, pid in sorted(found)]


@dataclass(frozen=True)
class _Task:
    """A process or thread, as /proc/PID/status has it."""

    pid: int
    own_pid: int  # as it knows itself: in a container that is another number
    parent: int
    name: str
    is_contained: bool  # it has numbers of its own


def _task(directory: Path) -> _Task:
    status = status_of(directory)
    own_pids = status.get("NSpid", status["Pid"]).split()  # outermost PID namespace first
    return _Task(
        int(directory.name), int(own_pids[-1]), int(status["PPid"]), printable(status["Name"]), len(own_pids) > 1
    )


def _tasks(directories: Iterable[Path]) -> list[_Task]:
    """Of those that have not ended meanwhile."""
    found = []
    for directory in directories:
        with suppress(FileNotFoundError, ProcessLookupError):
            found.append(_task(directory))
    return found


def _server(mappings: dict[int, Mapping], budget: Budget) -> Server:
    """Raises Spent, and what SharedMemory raises."""
    processes = _tasks(Path(f"/proc/{pid}") for pid in mappings)
    if not processes:
        raise ProcessLookupError("all of them have ended")
    alive = {process.pid for process in processes}
    root = next((process for process in processes if process.parent not in alive), processes[0])
    living = _Living(processes)
    budget.show(1 + len(alive))
    with SharedMemory(root.pid, mappings[root.pid]) as memory:
        listeners = [seen for seen in (living.at(listener, budget) for listener in memory.listeners()) if seen]
        counters = memory.counters()
    budget.show(len(counters))
    return Server(root.pid, root.name, sorted(alive), listeners, counters)


class _Living:
    """The threads of a server that are alive: how each knows itself, and how we know it."""

    def __init__(self, processes: list[_Task]):
        self._processes = {process.own_pid: process for process in processes}
        self._known: dict[Adopter, Adopter | None] = {}
        self._threads: dict[int, dict[int, int]] = {}

    def at(self, listener: Listener, budget: Budget) -> Listener | None:
        """The listener with those alone; None where it is closed. A creator that has ended may have been the parent of
        a daemon: only one that let go closed its listener. Raises Spent."""
        budget.check()
        creator = self._seen(Adopter(listener.creator, listener.creator)) if listener.creator else None
        cpus = [
            replace(cpu, adopters=[seen for adopter in cpu.adopters if (seen := self._seen(adopter))])
            for cpu in listener.cpus
        ]
        shown = [cpu for cpu in cpus if cpu.listening or cpu.adopters]
        if not listener.creator and not any(cpu.adopters for cpu in shown):
            return None
        budget.show(1 + sum(1 + len(cpu.adopters) for cpu in shown))
        return replace(listener, creator=creator.process if creator else None, cpus=shown)

    def _seen(self, adopter: Adopter) -> Adopter | None:
        if adopter not in self._known:
            self._known[adopter] = self._look(adopter)
        return self._known[adopter]

    def _look(self, adopter: Adopter) -> Adopter | None:
        process = self._processes.get(adopter.process)
        thread = self._thread(process, adopter.thread) if process else None
        return Adopter(process.pid, thread) if process and thread else None

    def _thread(self, process: _Task, own: int) -> int | None:
        """Of a thread that is alive."""
        if not process.is_contained:
            return own if os.path.exists(f"/proc/{process.pid}/task/{own}") else None
        if process.pid not in self._threads:
            self._threads[process.pid] = {thread.own_pid: thread.pid for thread in _tasks(_threads(process.pid))}
        return self._threads[process.pid].get(own)


def _threads(pid: int) -> Iterator[Path]:
    with suppress(FileNotFoundError, ProcessLookupError):
        yield from islice(Path(f"/proc/{pid}/task").iterdir(), MOST_THREADS)
