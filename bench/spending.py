"""Whose CPU time it was: the server's, its NIC's, the client's, and so on.

A task's time is the first number of /proc/PID/task/TID/schedstat (Documentation/scheduler/sched-stats.rst), in ns. A
process belongs to the host in whose network namespace it is. The threads of an emulated NIC's receive queues belong to
the host that receives (topologies/queue_threads.py).
"""

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from mininet.node import Host

from fastsocket.steering.device import Device
from records.trials import LAB, NIC, OTHERS
from topologies.queue_threads import QueueThreads

NS = 1e-9
CLIENT = "client"  # the host on which load generators run

Reading = Mapping[tuple[str, int], float]  # owner and number of a task -> seconds that it has run


class Spending:
    """Reads the CPU time of all tasks of the machine. hosts: of the testbed, by name."""

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
            (owner, task): seconds
            for process in _numbers(Path("/proc"))
            for owner in [self._owner(process)]
            for task, seconds in _seconds(process)
        }

    def _owner(self, process: int) -> str:
        if process == os.getpid():
            return LAB
        by_namespace = self._owner_of_namespace.get(_namespace(process), OTHERS)
        return self._owner_of_thread.get(process, by_namespace)


def spent(before: Reading, after: Reading) -> dict[str, float]:
    """Seconds by owner between two readings, of the tasks that are in the second."""
    total: defaultdict[str, float] = defaultdict(float)
    for (owner, task), seconds in after.items():
        total[owner] += seconds - before.get((owner, task), 0.0)
    return dict(total)


def _seconds(process: int) -> Iterator[tuple[int, float]]:
    for task in _numbers(Path(f"/proc/{process}/task")):
        with suppress(OSError):  # it has just ended
            yield task, NS * int(Path(f"/proc/{process}/task/{task}/schedstat").read_text().split()[0])


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
