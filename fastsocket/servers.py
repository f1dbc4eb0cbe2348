"""The servers that run with libfsocket.so: found in /proc, each with the processes that share its page."""

import os
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from fastsocket.page import Adopter, CpuCounters, Listener, NotPreloaded, OtherVersion, Page, mapping_of, printable


@dataclass(frozen=True)
class Server:
    """The processes that map one page. Whoever is named here is alive, and has the id that we see, not its own."""

    pid: int  # the process that the others descend from, such as the master
    command: str
    processes: list[int]
    listeners: list[Listener]
    counters: list[CpuCounters]


@dataclass(frozen=True)
class Survey:
    """What a look at all processes found."""

    servers: list[Server]
    other_version: list[int]  # a process of each server whose library is older or newer than we are
    out_of_reach: int         # how many processes we were not allowed to look into

    def of(self, pids: list[int]) -> list[Server]:
        """The servers that any of these processes belongs to."""
        return [server for server in self.servers if not set(pids).isdisjoint(server.processes)]

    def remarks(self) -> list[str]:
        """What keeps this from being all that runs, a line each."""
        said = [f"the server of process {pid} runs with another version of libfsocket.so: restart it"
                for pid in self.other_version]
        if self.out_of_reach:
            said.append(f"processes that could not be looked into: {self.out_of_reach}; {_remedy()}")
        return said


def _remedy() -> str:
    return "run this with sudo" if os.geteuid() else "this root lacks CAP_SYS_PTRACE"


class Ended(Exception):
    """The process is not there, or not any more."""

    exit_status = 1


class OutOfReach(Exception):
    """We may not look into the process."""

    exit_status = 3


def absence(pid: int) -> Ended | NotPreloaded | OutOfReach:
    """Why a process belongs to no server that was seen."""
    try:
        with Page(pid):
            return NotPreloaded(f"process {pid} has begun to listen just now: ask again")
    except NotPreloaded as reason:
        return reason
    except PermissionError:
        return OutOfReach(f"process {pid} could not be looked into; {_remedy()}")
    except OSError:
        return Ended(f"process {pid} has ended")


def survey() -> Survey:
    """Look at every process. One that ends meanwhile is not there."""
    groups, out_of_reach = _processes_by_page()
    servers, other_version = [], []
    for pids in groups:
        try:
            servers.append(_server(pids))
        except OtherVersion:
            other_version.append(pids[0])
        except PermissionError:
            out_of_reach += len(pids)
        except (NotPreloaded, OSError):
            continue
    return Survey(sorted(servers, key=lambda server: server.pid), other_version, out_of_reach)


def _processes_by_page() -> tuple[list[list[int]], int]:
    """The processes of each server, and how many processes kept us out."""
    groups, out_of_reach = defaultdict(list), 0
    for pid in sorted(int(name) for name in os.listdir("/proc") if name.isdecimal()):
        try:
            groups[mapping_of(pid).memfd].append(pid)
        except PermissionError:
            out_of_reach += 1
        except (NotPreloaded, OSError):
            continue
    return list(groups.values()), out_of_reach


@dataclass(frozen=True)
class _Task:
    """A process or thread, as /proc/PID/status has it."""

    pid: int
    own_pid: int  # as it knows itself: in a container that is another number
    parent: int
    name: str


def _task(directory: Path) -> _Task:
    lines = (directory / "status").read_text(errors="replace").splitlines()
    status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    own_pids = status.get("NSpid", status["Pid"])  # outermost PID namespace first
    return _Task(int(directory.name), int(own_pids.split()[-1]), int(status["PPid"]), printable(status["Name"]))


def _tasks(directories: Iterator[Path]) -> list[_Task]:
    """Of those that have not ended meanwhile."""
    found = []
    for directory in directories:
        with suppress(FileNotFoundError, ProcessLookupError):
            found.append(_task(directory))
    return found


def _server(pids: list[int]) -> Server:
    processes = _tasks(Path(f"/proc/{pid}") for pid in pids)
    if not processes:
        raise ProcessLookupError("all of them have ended")
    alive = {process.pid for process in processes}
    root = next((process for process in processes if process.parent not in alive), processes[0])
    with Page(root.pid) as page:
        listeners, counters = page.listeners(), page.counters()
    living = _living(processes)
    seen = [_as_seen(listener, living) for listener in listeners if _is_in_use(listener, living)]
    return Server(root.pid, root.name, sorted(alive), seen, counters)


def _living(processes: list[_Task]) -> dict[Adopter, Adopter]:
    """Every thread of a server: how it knows itself -> how we know it."""
    return {Adopter(process.own_pid, thread.own_pid): Adopter(process.pid, thread.pid)
            for process in processes for thread in _tasks(_threads(process.pid))}


def _threads(pid: int) -> Iterator[Path]:
    with suppress(FileNotFoundError, ProcessLookupError):
        yield from Path(f"/proc/{pid}/task").iterdir()


def _is_in_use(listener: Listener, living: dict[Adopter, Adopter]) -> bool:
    """A creator that has ended may have been the parent of a daemon: only one that let go closed its listener."""
    return listener.creator is not None or any(adopter in living for cpu in listener.cpus for adopter in cpu.adopters)


def _as_seen(listener: Listener, living: dict[Adopter, Adopter]) -> Listener:
    creator = living.get(Adopter(listener.creator, listener.creator)) if listener.creator else None
    cpus = [replace(cpu, adopters=[living[adopter] for adopter in cpu.adopters if adopter in living])
            for cpu in listener.cpus]
    return replace(listener, creator=creator.process if creator else None,
                   cpus=[cpu for cpu in cpus if cpu.listening or cpu.adopters])
