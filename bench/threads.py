"""Which CPUs are threads of the same core (Hyper-Threading), as the kernel tells: their numbers do not.

Some machines number a core's threads one after the other (0-1, 2-3), QEMU and many clouds among them; others number all
first threads before any second one (0,4, 1,5). Documentation/ABI/stable/sysfs-devices-system-cpu, thread_siblings_list.
"""

from collections.abc import Iterable
from itertools import zip_longest
from pathlib import Path

from fastsocket.steering.cpus import cpus_in

TOPOLOGY = Path("/sys/devices/system/cpu")


def by_core(cpus: Iterable[int], topology: Path = TOPOLOGY) -> list[list[int]]:
    """These CPUs, those of a core together."""
    cores: dict[tuple[int, ...], list[int]] = {}
    for cpu in sorted(cpus):
        siblings = cpus_in(topology / f"cpu{cpu}/topology/thread_siblings_list")
        cores.setdefault(siblings, []).append(cpu)
    return list(cores.values())


def cores_first(cpus: Iterable[int], topology: Path = TOPOLOGY) -> list[int]:
    """These CPUs, one of each core before any second one: the first n of them are on as many cores as can be."""
    return [cpu for threads in zip_longest(*by_core(cpus, topology)) for cpu in threads if cpu is not None]
