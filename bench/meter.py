"""What a load cost the machine: CPU time by CPU and state, CPU time by owner, and interrupts between CPUs."""

import time
from contextlib import AbstractContextManager
from typing import NamedTuple

from bench.cpu import Snapshot, busy_time, difference, snapshot
from bench.interrupts import between_cpus
from bench.spending import Reading, Spending, spent
from records.trials import LAB, UNTOLD, CpuUse


class _State(NamedTuple):
    wall: float
    cpus: Snapshot
    interrupts: int
    own: float  # CPU seconds of the lab


def _state() -> _State:
    return _State(time.monotonic(), snapshot(), between_cpus(), time.process_time())


class Meter(AbstractContextManager["Meter"]):
    """Reads before and after what runs inside it."""

    def __init__(self, spending: Spending):
        self._spending = spending

    def __enter__(self) -> "Meter":
        self._tasks_before: Reading = self._spending.read()
        self._before = _state()
        return self

    def __exit__(self, *exception: object) -> None:
        self._after = _state()
        self._tasks_after = self._spending.read()

    def use(self, cpus: list[int]) -> list[CpuUse]:
        """What these CPUs did."""
        return difference(self._before.cpus, self._after.cpus, cpus)

    @property
    def wall(self) -> float:
        """Seconds that passed."""
        return self._after.wall - self._before.wall

    @property
    def interrupts(self) -> int:
        return self._after.interrupts - self._before.interrupts

    def spent(self, ended: dict[str, float]) -> dict[str, float]:
        """CPU seconds by owner; they add up to the busy time of all CPUs.

        ended: those of tasks that have ended meanwhile, which only their parents know.
        """
        told = spent(self._tasks_before, self._tasks_after)
        told[LAB] = self._after.own - self._before.own  # without the readings themselves
        for owner, seconds in ended.items():
            told[owner] = told.get(owner, 0.0) + seconds
        return {**told, UNTOLD: busy_time(self.use(sorted(self._after.cpus)), self.wall) - sum(told.values())}
