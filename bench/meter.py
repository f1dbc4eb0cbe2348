"""What a load costs the machine: CPU time by CPU and state, CPU time and context switches by owner (records/trials.py),
interrupts between CPUs, and packets."""

import time
from contextlib import AbstractContextManager
from typing import NamedTuple

from bench.cpu import busy_time, difference
from bench.packets import Packets, packets
from bench.spending import Reading, Spending, spent, switches
from fastsocket.measure.machine import Snapshot, between_cpus, snapshot
from records.trials import LAB, UNTOLD, CpuUse


class _State(NamedTuple):
    wall: float
    cpus: Snapshot
    interrupts: int
    own: float  # CPU seconds of the lab's own process
    packets: Packets


def _state(host: int) -> _State:
    return _State(time.monotonic(), snapshot(), between_cpus(), time.process_time(), packets(host))


class Meter(AbstractContextManager["Meter"]):
    """Measures what runs inside its context: it takes readings when the context begins and when it ends.

    host: the id of a process in the network namespace whose packets are counted.
    """

    def __init__(self, spending: Spending, host: int):
        self._spending = spending
        self._host = host

    def __enter__(self) -> "Meter":
        self._tasks_before: Reading = self._spending.read()
        self._before = _state(self._host)
        return self

    def __exit__(self, *exception: object) -> None:
        self._after = _state(self._host)
        self._tasks_after = self._spending.read()

    def use(self, cpus: list[int]) -> list[CpuUse]:
        """The seconds that each of these CPUs spent in each state."""
        return difference(self._before.cpus, self._after.cpus, cpus)

    @property
    def wall(self) -> float:
        """The seconds between the two readings."""
        return self._after.wall - self._before.wall

    @property
    def interrupts(self) -> int:
        return self._after.interrupts - self._before.interrupts

    @property
    def packets(self) -> Packets:
        return self._after.packets.since(self._before.packets)

    def switches(self, owner: str) -> int:
        """How often CPUs switched to a task of this owner."""
        return switches(self._tasks_before, self._tasks_after, owner)

    def spent(self, ended: dict[str, float]) -> dict[str, float]:
        """CPU seconds by owner; they add up to the busy time of all CPUs.

        ended: CPU seconds, by owner, of tasks that ended meanwhile. The second reading lacks them: only their parents
        know them.
        """
        told = spent(self._tasks_before, self._tasks_after)
        told[LAB] = self._after.own - self._before.own  # without the cost of reading all tasks
        for owner, seconds in ended.items():
            told[owner] = told.get(owner, 0.0) + seconds
        return {**told, UNTOLD: busy_time(self.use(sorted(self._after.cpus)), self.wall) - sum(told.values())}
