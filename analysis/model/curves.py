"""The published curves, and what is known of the machines and kernels that they were measured on."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.model.queue import Numbers
from analysis.words import called

PUBLISHED = Path(__file__).parent.parent / "published"
_SLIDES, _NGINX = PUBLISHED / "throughput_by_cores.csv", PUBLISHED / "nginx_by_cores.csv"

# Cycles until a core has a cache line that another one changed: David, Guerraoui and Trigonakis, "Everything you always
# wanted to know about synchronization but were afraid to ask", SOSP 2013, table 2, Xeon, load, modified.
_SAME_SOCKET, _OTHER_SOCKET = 109, 289
# Times that Linux 2.6.32 takes a lock, counted in the kernel of fastos/fastsocket, 2.6.32-431.
_LISTENER = 4  # the listener's lock for a connection: SYN, ACK, lock_sock() and release_sock() of accept()
_SOCKET = 6  # dcache_lock (d_alloc, d_instantiate, dput) and inode_lock (new_inode, iput, generic_delete_inode)
_PLAIN_ERROR = 0.05  # of a point whose source names none: taken, not known


@dataclass(frozen=True)
class Machine:
    """Its sockets are filled one after the other, and all are one hop apart."""

    socket_cores: int
    ghz: float

    def transfer(self, cores: int) -> float:
        """Mean µs until a core has a line that another of these cores changed."""
        filled, rest = divmod(cores, self.socket_cores)
        same = filled * self.socket_cores * (self.socket_cores - 1) + rest * (rest - 1)  # of all pairs
        near = same / (cores * (cores - 1)) if cores > 1 else 1.0
        return (near * _SAME_SOCKET + (1 - near) * _OTHER_SOCKET) / (1000 * self.ghz)

    def away(self, cores: int) -> float:
        """The part of these cores that are not on the NIC's socket, the first one."""
        return 1 - min(cores, self.socket_cores) / cores


SLIDES_MACHINE = Machine(socket_cores=12, ghz=2.7)  # 2 × Xeon E5-2697 v2
NGINX_MACHINE = Machine(socket_cores=18, ghz=2.3)  # 2 × Xeon E5-2699 v3


@dataclass(frozen=True)
class Curve:
    """Thousand connections per second by cores, as published."""

    workload: str
    system: str
    machine: Machine
    cores: Numbers
    kcps: Numbers
    sigma: Numbers  # of the published value, one standard deviation
    known: int  # the points at up to so many cores are fitted, the others held out
    spun: int = 0  # times that a connection takes the lock on which all cores spin
    spun_at_most: int = 0  # the same with every global lock counted, not the listener's alone
    is_local: bool = False  # packets are handled where their application is

    @property
    def name(self) -> str:
        return f"{called(self.workload)}, {self.system}"

    @property
    def is_known(self) -> "np.ndarray[tuple[int], np.dtype[np.bool_]]":
        return self.cores <= self.known


@cache
def published_curves() -> list[Curve]:
    """Those of the slides' figure, in its order, and NGINX's own table."""
    slides = pd.read_csv(_SLIDES).groupby(["workload", "system"], sort=False)
    table = pd.read_csv(_NGINX)
    nginx = Curve("nginx", "NGINX's table", NGINX_MACHINE, *_numbers(table, _PLAIN_ERROR * table.kcps), known=8)
    return [*(_of_the_slides(str(workload), str(system), points) for (workload, system), points in slides), nginx]


def _of_the_slides(workload: str, system: str, points: pd.DataFrame) -> Curve:
    sigma = np.maximum(points.error_kcps / 2, 0.01 * points.kcps)  # "good to about" is taken as two standard deviations
    sockets = 2 if workload == "haproxy" else 1
    spins = "base" in system
    return Curve(
        workload,
        system,
        SLIDES_MACHINE,
        *_numbers(points, sigma),
        known=12,
        spun=_LISTENER if spins else 0,
        spun_at_most=_LISTENER + _SOCKET * sockets if spins else 0,
        is_local=system == "Fastsocket",
    )


def _numbers(points: pd.DataFrame, sigma: Any) -> tuple[Numbers, Numbers, Numbers]:
    cores, kcps, error = (np.asarray(values, np.float64) for values in (points.cores, points.kcps, sigma))
    return cores, kcps, error
