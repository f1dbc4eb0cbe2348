"""Waiting for what another process does: for its end, or, where no event tells of it, by asking."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager

from tests.harness.patience import patient
from workloads.process import POLL_SECONDS, open_all, still_running

WAIT_SECONDS = patient(15)


def wait_until(is_so: Callable[[], bool], what: str, seconds: float = WAIT_SECONDS) -> None:
    """Ask until the answer is yes."""
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(POLL_SECONDS)


@contextmanager
def ending(pids: Iterable[int], seconds: float = WAIT_SECONDS) -> Iterator[None]:
    """The block ends these processes. A zombie has ended, though its parent has not reaped it yet (pidfd_open(2))."""
    with ExitStack() as descriptors:
        members = open_all([*pids], descriptors)
        yield
        assert not still_running(members, seconds), f"some of {pids} did not end within {seconds} s"
