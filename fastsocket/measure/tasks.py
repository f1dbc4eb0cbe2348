"""How long threads have run, and have waited for a CPU: /proc/PID/task/TID/schedstat.

Documentation/scheduler/sched-stats.rst explains its three numbers.
"""

from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from fastsocket.processes import numbers, stat_fields

NS = 1e-9


class Ran(NamedTuple):
    """How long a thread has run, how long it was ready and had no CPU, and how often a CPU has switched to it."""

    seconds: float
    waited: float
    switches: int


def threads_of(process: int) -> dict[int, Ran]:
    """How long each thread of a process has run, by thread. Threads that have just ended are left out."""
    found = {}
    for thread in numbers(f"/proc/{process}/task"):
        with suppress(OSError):
            ran, waited, times = Path(f"/proc/{process}/task/{thread}/schedstat").read_text().split()
            found[thread] = Ran(NS * int(ran), NS * int(waited), int(times))
    return found


class Stat(NamedTuple):
    """A thread's CPU time in user mode and in the kernel, in clock ticks, and the CPU where it ran last (proc(5))."""

    user: int
    system: int
    cpu: int


def stat_of(process: int, thread: int) -> Stat | None:
    """The CPU times of a thread; None for a thread that has ended."""
    try:
        fields = stat_fields(f"/proc/{process}/task/{thread}")
    except OSError:
        return None
    return Stat(int(fields[11]), int(fields[12]), int(fields[36]))
