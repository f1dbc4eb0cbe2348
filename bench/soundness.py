"""Whether a trial is sound: its server lived through the load, and nothing was suspended meanwhile."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from fastsocket.processes import family, stat_fields
from records.trials import OTHERS, CpuUse
from workloads import limits
from workloads.load import Load
from workloads.process import WorkloadError

OTHERS_TOLERATED = 0.1  # of all CPU time
BUSY = f"other processes took more than {OTHERS_TOLERATED:.0%} of the CPU time"
STOPPED, ENDED = "tT", "ZX"  # states in proc(5), /proc/PID/stat: tracing stop and stopped; zombie and dead


@contextmanager
def unharmed(pids: list[int]) -> Iterator[None]:
    """Raises WorkloadError when the context ends, if a process of the server has ended or was stopped meanwhile."""
    before = _members(pids)
    yield
    for pid in before:
        state = state_of(pid)
        if state in ENDED:
            raise WorkloadError(f"process {pid} of the server ended during the load")
        if state in STOPPED:
            raise WorkloadError(f"process {pid} of the server was stopped during the load")


def _members(pids: list[int]) -> list[int]:
    return [member for pid in pids for member in family(pid)]


def state_of(pid: int) -> str:
    """The state of a process, as proc(5) has it; "X" (dead) for a process that is gone."""
    try:
        return stat_fields(f"/proc/{pid}")[0]
    except (FileNotFoundError, ProcessLookupError):
        return "X"


def within_time(load: Callable[[], Load], asked: float) -> Load:
    """Make a load of so many seconds, and return it. Raises WorkloadError as require_time_went_on() does."""
    began = time.monotonic()
    made = load()
    require_time_went_on(asked, made, time.monotonic() - began)
    return made


def require_time_went_on(asked: float, load: Load, wall: float) -> None:
    """Raises WorkloadError if the load took far longer than asked, or if the lab took far longer than the load.

    Either the load generator or the lab was suspended then, and CPU time and requests belong to different spans of
    time. asked, wall: seconds.
    """
    patience = limits.read().grace_seconds / 8
    if load.seconds > 3 * asked + patience:
        raise WorkloadError(f"the load took {load.seconds:.1f} s instead of {asked:.0f} s")
    if wall > load.seconds + patience:
        raise WorkloadError(f"the lab was suspended: {wall:.1f} s passed around {load.seconds:.1f} s of load")


def is_busy(spent: dict[str, float], use: list[CpuUse], wall: float) -> bool:
    """Whether processes that are not the trial's took more than OTHERS_TOLERATED of the CPUs' time.

    An observer of a trial, such as perf, counts as such a process. wall: seconds that the trial's load took.
    """
    return spent.get(OTHERS, 0.0) > OTHERS_TOLERATED * wall * len(use)
