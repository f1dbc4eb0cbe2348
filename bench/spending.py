"""CPU time and context switches by owner: the server, its NIC, the client, and so on.

fastsocket/measure/tasks.py reads both for each task. A process belongs to the host in whose mount namespace it runs:
each host has a mount namespace of its own (topologies/tag.py). The threads of an emulated NIC's receive queues belong
to the NIC of the host that receives (topologies/queue_threads.py).
"""

import os
from collections import defaultdict
from collections.abc import Mapping

from fastsocket.measure.tasks import Ran, threads_of
from fastsocket.processes import numbers
from fastsocket.steering.device import Device
from records.trials import LAB, NIC, OTHERS
from topologies.client import Client
from topologies.queue_threads import QueueThreads

CLIENT = "client"  # the host on which load generators run

Reading = Mapping[tuple[str, int], Ran]  # (owner, task's number) -> how long the task has run
_NOT_YET = Ran(0.0, 0.0, 0)


class Spending:
    """Reads how long all tasks of the machine have run.

    hosts: the hosts of the testbed, by name. threads: the threads of the emulated NIC's receive queues, by device.
    """

    def __init__(self, hosts: Mapping[str, Client], threads: Mapping[Device, QueueThreads]):
        self._owner_of_namespace = {_namespace(host.pid): name for name, host in hosts.items()}
        name_of = {host.pid: name for name, host in hosts.items()}
        self._owner_of_thread = {
            pid: f"{name_of[device.process]}{NIC}"
            for device, queues in threads.items()
            if device.process in name_of
            for pid in queues.pids
        }

    def read(self) -> Reading:
        """Read each task of the machine."""
        return {
            (owner, task): ran
            for process in numbers("/proc")
            for owner in [self._owner(process)]
            for task, ran in threads_of(process).items()
        }

    def _owner(self, process: int) -> str:
        if process == os.getpid():
            return LAB
        by_namespace = self._owner_of_namespace.get(_namespace(process), OTHERS)
        return self._owner_of_thread.get(process, by_namespace)


def spent(before: Reading, after: Reading) -> dict[str, float]:
    """CPU seconds by owner between two readings. Only tasks that are in the second reading count."""
    total: defaultdict[str, float] = defaultdict(float)
    for key, ran in after.items():
        total[key[0]] += ran.seconds - before.get(key, _NOT_YET).seconds
    return dict(total)


def switches(before: Reading, after: Reading, owner: str) -> int:
    """How often CPUs switched to a task of this owner between two readings."""
    return sum(ran.switches - before.get(key, _NOT_YET).switches for key, ran in after.items() if key[0] == owner)


def _namespace(process: int) -> int:
    """The inode number of a process's mount namespace; 0 if the process has just ended."""
    try:
        return os.stat(f"/proc/{process}/ns/mnt").st_ino
    except OSError:
        return 0
