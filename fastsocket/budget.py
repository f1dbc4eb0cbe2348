"""How much a look at one user's processes may cost. Any user can start processes that cost more than honest ones do."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from fastsocket.steering.cpus import machine_cpus

SECONDS_OF_A_USER, SECONDS_OF_ALL = 0.75, 1.5  # of our CPU time, because a machine may be busy


class Spent(Exception):
    """There is not enough left."""


class Budget:
    """What a user has left, in seconds and in lines of what is shown. all_users: which it is part of."""

    def __init__(self, seconds: float, lines: float, all_users: "Budget | None" = None):
        self._seconds, self._lines, self._all = seconds, lines, all_users

    @contextmanager
    def spending(self) -> Iterator[None]:
        """Takes the time that passes inside. Raises Spent where none is left."""
        self.check()
        began = time.thread_time()
        try:
            yield
        finally:
            self._take(time.thread_time() - began)

    def check(self) -> None:
        """Raises Spent."""
        if self._seconds <= 0 or (self._all and self._all._seconds <= 0):
            raise Spent

    def _take(self, seconds: float) -> None:
        self._seconds -= seconds
        if self._all:
            self._all._take(seconds)

    def show(self, lines: int) -> None:
        """Raises Spent, and takes nothing, where that is more than is left."""
        if lines > self._lines:
            raise Spent
        self._lines -= lines


class Budgets:
    """One for each user. The caller's own processes have no bounds."""

    def __init__(self, own: int):
        self._all = Budget(SECONDS_OF_ALL, float("inf"))
        self._of = {own: Budget(float("inf"), float("inf"))}

    def of(self, uid: int) -> Budget:
        return self._of.setdefault(uid, Budget(SECONDS_OF_A_USER, 2000 + 32 * machine_cpus(), self._all))
