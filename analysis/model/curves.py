"""The published curves, and what is known of the machines and kernels on which they were measured."""

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

# Cycles until a core has a cache line that another core changed: David, Guerraoui and Trigonakis, "Everything you
# always wanted to know about synchronization but were afraid to ask", SOSP 2013, table 2, Xeon, load, modified.
_SAME_SOCKET, _OTHER_SOCKET = 109, 289
# How often Linux 2.6.32 takes a lock for a connection, counted in the source of fastos/fastsocket's kernel, 2.6.32-431.
_LISTENER = 4  # the listener's lock for a connection: SYN, ACK, lock_sock() and release_sock() of accept()
_SOCKET = 6  # dcache_lock (d_alloc, d_instantiate, dput) and inode_lock (new_inode, iput, generic_delete_inode)
_PLAIN_ERROR = 0.05  # relative error that is assumed for points whose source names no error


@dataclass(frozen=True)
class Machine:
    """A machine whose CPU sockets are filled one after the other, and are all one hop apart."""

    socket_cores: int
    ghz: float

    def transfer(self, cores: int) -> float:
        """The mean time in µs until a core has a cache line that another of these cores changed."""
        filled, rest = divmod(cores, self.socket_cores)
        same = filled * self.socket_cores * (self.socket_cores - 1) + rest * (rest - 1)  # pairs on the same socket
        near = same / (cores * (cores - 1)) if cores > 1 else 1.0
        return (near * _SAME_SOCKET + (1 - near) * _OTHER_SOCKET) / (1000 * self.ghz)

    def away(self, cores: int) -> float:
        """The part of these cores, 0 to 1, that are not on the first socket, where the NIC is."""
        return 1 - min(cores, self.socket_cores) / cores


SLIDES_MACHINE = Machine(socket_cores=12, ghz=2.7)  # 2 × Xeon E5-2697 v2
NGINX_MACHINE = Machine(socket_cores=18, ghz=2.3)  # 2 × Xeon E5-2699 v3


@dataclass(frozen=True)
class Curve:
    """A published curve: thousand connections per second (kcps) by cores."""

    workload: str
    system: str
    machine: Machine
    cores: Numbers
    kcps: Numbers
    sigma: Numbers  # one standard deviation of each published value
    known: int  # points at up to so many cores are fitted, the others are held out
    spun: int = 0  # how often a connection takes the listener's lock, on which all cores spin
    spun_at_most: int = 0  # the same, with every global lock counted beside the listener's
    is_local: bool = False  # whether packets are handled on the core of their application

    @property
    def name(self) -> str:
        return f"{called(self.workload)}, {self.system}"

    @property
    def is_known(self) -> "np.ndarray[tuple[int], np.dtype[np.bool_]]":
        return self.cores <= self.known


@cache
def published_curves() -> list[Curve]:
    """The curves of the slides' figure, in its order, and then NGINX's own table."""
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
