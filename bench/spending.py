"""Whose CPU time it was, and how often a CPU switched to whom: the server, its NIC, the client, and so on.

/proc/PID/task/TID/schedstat (Documentation/scheduler/sched-stats.rst) has both: the first number is the task's time in
ns, the third how often a CPU switched to the task. A process belongs to the host in whose network namespace it is. The
threads of an emulated NIC's receive queues belong to the host that receives (topologies/queue_threads.py).
"""

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from mininet.node import Host

from fastsocket.steering.device import Device
from records.trials import LAB, NIC, OTHERS
from topologies.queue_threads import QueueThreads

NS = 1e-9
CLIENT = "client"  # the host on which load generators run


class Ran(NamedTuple):
    """How long a task has run, and how often a CPU has switched to it."""

    seconds: float
    switches: int


Reading = Mapping[tuple[str, int], Ran]  # by the owner and the number of the task
_NOT_YET = Ran(0.0, 0)


class Spending:
    """Reads how long all tasks of the machine have run. hosts: of the testbed, by name."""

    def __init__(self, hosts: Mapping[str, Host], threads: Mapping[Device, QueueThreads]):
        self._owner_of_namespace = {_namespace(host.pid): name for name, host in hosts.items()}
        name_of = {host.pid: name for name, host in hosts.items()}
        self._owner_of_thread = {
            pid: f"{name_of[device.process]}{NIC}"
            for device, queues in threads.items()
            if device.process in name_of
            for pid in queues.pids
        }

    def read(self) -> Reading:
        """Of each task of the machine."""
        return {
            (owner, task): ran
            for process in _numbers(Path("/proc"))
            for owner in [self._owner(process)]
            for task, ran in _ran(process)
        }

    def _owner(self, process: int) -> str:
        if process == os.getpid():
            return LAB
        by_namespace = self._owner_of_namespace.get(_namespace(process), OTHERS)
        return self._owner_of_thread.get(process, by_namespace)


def spent(before: Reading, after: Reading) -> dict[str, float]:
    """Seconds by owner between two readings, of the tasks that are in the second."""
    total: defaultdict[str, float] = defaultdict(float)
    for key, ran in after.items():
        total[key[0]] += ran.seconds - before.get(key, _NOT_YET).seconds
    return dict(total)


def switches(before: Reading, after: Reading, owner: str) -> int:
    """How often a CPU switched to a task of this owner between two readings."""
    return sum(ran.switches - before.get(key, _NOT_YET).switches for key, ran in after.items() if key[0] == owner)


def _ran(process: int) -> Iterator[tuple[int, Ran]]:
    for task in _numbers(Path(f"/proc/{process}/task")):
        with suppress(OSError):  # it has just ended
            ns, _, times = Path(f"/proc/{process}/task/{task}/schedstat").read_text().split()
            yield task, Ran(NS * int(ns), int(times))


def _numbers(directory: Path) -> list[int]:
    try:
        return [int(name) for name in os.listdir(directory) if name.isdigit()]
    except FileNotFoundError:  # the process has just ended
        return []


def _namespace(process: int) -> int:
    """The inode number of a process's network namespace; 0 when it has just ended."""
    try:
        return os.stat(f"/proc/{process}/ns/net").st_ino
    except OSError:
        return 0
