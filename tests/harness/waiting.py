"""Waiting for what another process does, where no event tells of it."""

import time
from collections.abc import Callable

from tests.harness.patience import patient
from workloads.process import POLL_SECONDS

WAIT_SECONDS = patient(15)


def wait_until(is_so: Callable[[], bool], what: str, seconds: float = WAIT_SECONDS) -> None:
    """Ask until the answer is yes."""
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(POLL_SECONDS)
