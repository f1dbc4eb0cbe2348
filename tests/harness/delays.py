"""How long clients wait, and a worker that is stopped."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.harness.waiting import wait_until

# A busy machine lets all wait for their CPU, and a neighbour has to be woken a few times. So each time the same is
# measured without the library, too.
TIMES_WOKEN = 4
ATTEMPTS = 3  # of which the median counts


def milliseconds(ask: Callable[[], object]) -> float:
    began = time.monotonic()
    ask()
    return 1000 * (time.monotonic() - began)


def longest(ask: Callable[[], object], number: int) -> float:
    return max(milliseconds(ask) for _ in range(number))


def assert_short(waits: Callable[[bool], float], limit_ms: float, attempts: int = ATTEMPTS) -> None:
    """waits: the milliseconds that a client waits, with the library or without."""
    late: list[float] = []
    while 2 * sum(one <= limit_ms for one in late) < attempts:  # else the median is short, whatever follows
        assert len(late) < attempts, late
        late.append(waits(True) - TIMES_WOKEN * waits(False))


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        wait_until(lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T", "it is stopped")
        yield
    finally:
        os.kill(pid, signal.SIGCONT)
