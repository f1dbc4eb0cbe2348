"""A reading of a server: all that the kernel has counted for the server and the machine up to one moment."""

import time
from collections.abc import Iterable
from typing import NamedTuple

from fastsocket.measure.listeners import Listeners, Listening
from fastsocket.measure.machine import Snapshot, between_cpus, received, snapshot
from fastsocket.measure.namespace import Counts, counts_of
from fastsocket.measure.probe import Probe, Row
from fastsocket.measure.tasks import Ran, Stat, stat_of, threads_of
from fastsocket.processes import sockets
from fastsocket.servers import OutOfReach, remedy


class Thread(NamedTuple):
    process: int
    ran: Ran
    stat: Stat


class Reading(NamedTuple):
    at: float
    threads: dict[int, Thread]
    cpus: Snapshot
    interrupts: int
    received: dict[int, int]
    counts: Counts
    listening: dict[int, Listening]  # the server's own listeners, by inode
    rows: dict[int, Row]  # what BPF counted, by thread


def look(pid: int, processes: Iterable[int], listeners: Listeners, inodes: set[int], probe: Probe | None) -> Reading:
    return Reading(
        time.monotonic(),
        _threads(processes),
        snapshot(),
        between_cpus(),
        received(),
        counts_of(pid),
        own(listeners, inodes),
        probe.read() if probe else {},
    )


def _threads(processes: Iterable[int]) -> dict[int, Thread]:
    return {
        thread: Thread(process, ran, stat)
        for process in processes
        for thread, ran in threads_of(process).items()
        if (stat := stat_of(process, thread))
    }


def own(listeners: Listeners, inodes: set[int]) -> dict[int, Listening]:
    """The listeners that have one of these inodes, by inode."""
    return {inode: listener for inode, listener in listeners.read().items() if inode in inodes}


def sockets_of(processes: Iterable[int]) -> set[int]:
    """The inodes of all sockets that these processes have open. Raises OutOfReach."""
    return {inode for process in processes for inode in _sockets_of(process)}


def _sockets_of(process: int) -> set[int]:
    try:
        return {inode for _, inode in sockets(process)}
    except PermissionError as error:
        raise OutOfReach(f"process {process} does not let us see its sockets: {remedy()}") from error
