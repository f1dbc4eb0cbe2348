"""A neighbour: a process that keeps one of the server's CPUs busy."""

from collections.abc import Iterator
from contextlib import contextmanager

from workloads.process import ending_with_us, running

BUSY = ["sh", "-c", "while :; do :; done"]


@contextmanager
def neighbour(cpu: int, nice: int) -> Iterator[int]:
    """Runs on this CPU at this nice value; yields its process id. It ends with the context, and with us if we are
    killed."""
    placed = ["taskset", "--cpu-list", str(cpu), "nice", "--adjustment", str(nice)]
    with running(ending_with_us([*placed, *BUSY])) as process:
        yield process.pid
