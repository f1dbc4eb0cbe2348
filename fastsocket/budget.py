"""Bounds on what a look at one user's processes may cost. Any user can start processes that are costly to look at."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from fastsocket.steering.cpus import machine_cpus

SECONDS_OF_A_USER, SECONDS_OF_ALL = 0.75, 1.5  # seconds of our CPU time, not of the clock: the machine may be busy


class Spent(Exception):
    """The budget has too little left."""


class Budget:
    """What looks at one user's processes may still cost: seconds of our CPU time, and lines of output.

    all_users: the budget of all users together, which is charged the same seconds.
    """

    def __init__(self, seconds: float, lines: float, all_users: "Budget | None" = None):
        self._seconds, self._lines, self._all = seconds, lines, all_users

    @contextmanager
    def spending(self) -> Iterator[None]:
        """Charge the CPU time of the with block to the budget. Raises Spent where no time is left."""
        self.check()
        began = time.thread_time()
        try:
            yield
        finally:
            self._take(time.thread_time() - began)

    def check(self) -> None:
        """Raises Spent where no time is left, for this user or for all users together."""
        if self._seconds <= 0 or (self._all and self._all._seconds <= 0):
            raise Spent

    def _take(self, seconds: float) -> None:
        self._seconds -= seconds
        if self._all:
            self._all._take(seconds)

    def show(self, lines: int) -> None:
        """Charge these lines of output to the budget. Where fewer are left, charges nothing and raises Spent."""
        if lines > self._lines:
            raise Spent
        self._lines -= lines


class Budgets:
    """A budget for each user. The caller's own processes have no bounds. own: the caller's user id."""

    def __init__(self, own: int):
        self._all = Budget(SECONDS_OF_ALL, float("inf"))
        self._of = {own: Budget(float("inf"), float("inf"))}

    def of(self, uid: int) -> Budget:
        return self._of.setdefault(uid, Budget(SECONDS_OF_A_USER, 2000 + 32 * machine_cpus(), self._all))
