"""Which CPUs are threads of the same core (Hyper-Threading). The kernel tells it; the numbers of the CPUs do not.

Some machines, QEMU and many clouds among them, number the threads of a core one after the other (0-1, 2-3). Others
number all first threads before any second one (0,4, 1,5).
Source: Documentation/ABI/stable/sysfs-devices-system-cpu, thread_siblings_list.
"""

from collections.abc import Iterable
from itertools import zip_longest
from pathlib import Path

from fastsocket.steering.cpus import cpus_in

TOPOLOGY = Path("/sys/devices/system/cpu")


def by_core(cpus: Iterable[int], topology: Path = TOPOLOGY) -> list[list[int]]:
    """Group these CPUs by core: a list for each core, with those of its threads that are among these CPUs."""
    cores: dict[tuple[int, ...], list[int]] = {}
    for cpu in sorted(cpus):
        siblings = cpus_in(topology / f"cpu{cpu}/topology/thread_siblings_list")
        cores.setdefault(siblings, []).append(cpu)
    return list(cores.values())


def cores_first(cpus: Iterable[int], topology: Path = TOPOLOGY) -> list[int]:
    """Order these CPUs so that one thread of each core comes before any second thread of a core. The first n CPUs are
    then on as many cores as possible."""
    return [cpu for threads in zip_longest(*by_core(cpus, topology)) for cpu in threads if cpu is not None]
