"""The busy neighbour of an experiment: a process that keeps one of the server's CPUs busy."""

from collections.abc import Iterator
from contextlib import contextmanager

from workloads.process import ending_with_us, running

BUSY = ["sh", "-c", "while :; do :; done"]


@contextmanager
def neighbour(cpu: int, nice: int) -> Iterator[int]:
    """Run a busy process on this CPU at this nice value. Yields its process id.

    The process ends with the context. If our process is killed, it ends too.
    """
    placed = ["taskset", "--cpu-list", str(cpu), "nice", "--adjustment", str(nice)]
    with running(ending_with_us([*placed, *BUSY])) as process:
        yield process.pid
