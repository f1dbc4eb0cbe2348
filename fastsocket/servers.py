"""Find the servers that run with libfsocket.so in /proc, each with the processes that share its memory."""

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

MOST_THREADS = 4096  # how many threads of a process in a container are asked for the numbers that they have there


@dataclass(frozen=True)
class Server:
    """The living processes that map one shared memory. Their ids are those in the reader's PID namespace."""

    pid: int  # the process from which the others descend, such as the master
    command: str
    processes: list[int]
    listeners: list[Listener]
    counters: list[CpuCounters]


SHOWN = 5  # a remark names at most so many entries of a list


@dataclass
class Survey:
    """What a look at all processes found."""

    servers: list[Server] = field(default_factory=list)
    other_version: list[int] = field(default_factory=list)  # one process of each server with another library version
    out_of_reach: int = 0  # how many processes we were not allowed to look into
    left_out: dict[int, list[int]] = field(default_factory=dict)  # by user: processes beyond the user's budget

    def leave_out(self, user: int, pids: Iterable[int]) -> None:
        self.left_out.setdefault(user, []).extend(pids)

    def of(self, pids: list[int]) -> list[Server]:
        """The servers that any of these processes belongs to."""
        return [server for server in self.servers if not set(pids).isdisjoint(server.processes)]

    def remarks(self) -> list[str]:
        """Why the survey may lack servers that run, one line for each reason."""
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
    """What helps where we may not look into a process."""
    return "run this with sudo" if os.geteuid() else "this root lacks CAP_SYS_PTRACE"


class Ended(Exception):
    """The process does not exist, or has ended."""

    exit_status = 1


class OutOfReach(Exception):
    """We may not look into the process, or its user's processes have used up their budget."""

    exit_status = 3


def absence(pid: int, found: Survey) -> Ended | NotPreloaded | OutOfReach:
    """Why a process belongs to no server of a survey."""
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
    """Look at every process, and find the servers. A process that ends during the look is left out.

    first: processes to look at before the others of their user. Other users' processes are looked into as far as their
    budgets go.
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
    """The processes of each server, and the user whose budget the look is charged to.

    Where a server's processes have several users, that is the user with the lowest id.
    """
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
    """The user and the number of every process, in the order in which to look at them.

    System users come first, so that other users' processes cannot use up the time for theirs.
    """
    found = []
    for pid in (int(name) for name in os.listdir("/proc") if name.isdecimal()):
        with suppress(OSError):
            found.append((user_of(pid), pid not in first, pid))
    return [(user, pid) for user, _, pid in sorted(found)]


@dataclass(frozen=True)
class _Task:
    """A process or thread as its file status in /proc describes it."""

    pid: int
    own_pid: int  # its number in its own PID namespace, which is another one in a container
    parent: int
    name: str
    is_contained: bool  # True: it is in a PID namespace below ours


def _task(directory: Path) -> _Task:
    status = status_of(directory)
    own_pids = status.get("NSpid", status["Pid"]).split()  # outermost PID namespace first
    return _Task(
        int(directory.name), int(own_pids[-1]), int(status["PPid"]), printable(status["Name"]), len(own_pids) > 1
    )


def _tasks(directories: Iterable[Path]) -> list[_Task]:
    """The processes or threads of these /proc directories that still live."""
    found = []
    for directory in directories:
        with suppress(FileNotFoundError, ProcessLookupError):
            found.append(_task(directory))
    return found


def _server(mappings: dict[int, Mapping], budget: Budget) -> Server:
    """The server whose processes have these mappings. Raises Spent, and what SharedMemory raises."""
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
    """The living threads of a server. Translates the numbers of their own PID namespace into ours."""

    def __init__(self, processes: list[_Task]):
        self._processes = {process.own_pid: process for process in processes}
        self._known: dict[Adopter, Adopter | None] = {}
        self._threads: dict[int, dict[int, int]] = {}

    def at(self, listener: Listener, budget: Budget) -> Listener | None:
        """The listener with only its living adopters; None where the listener is closed. Raises Spent.

        A listener whose creator has ended may still be open: the creator may have been the parent of a daemon. Only a
        creator that has let go of the listener has closed it.
        """
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
        """The number by which we know a thread of a process; None for a thread that has ended. own: its own number."""
        if not process.is_contained:
            return own if os.path.exists(f"/proc/{process.pid}/task/{own}") else None
        if process.pid not in self._threads:
            self._threads[process.pid] = {thread.own_pid: thread.pid for thread in _tasks(_threads(process.pid))}
        return self._threads[process.pid].get(own)


def _threads(pid: int) -> Iterator[Path]:
    with suppress(FileNotFoundError, ProcessLookupError):
        yield from islice(Path(f"/proc/{pid}/task").iterdir(), MOST_THREADS)
