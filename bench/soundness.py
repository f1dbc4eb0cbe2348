"""Whether a trial measured what it should have: its server lived through the load, and time went on as usual."""

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
STOPPED, ENDED = "tT", "ZX"  # states of proc(5), /proc/PID/stat


@contextmanager
def unharmed(pids: list[int]) -> Iterator[None]:
    """Meanwhile no process of the server ends or stops. Raises WorkloadError."""
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
    """A process that is gone has ended."""
    try:
        return stat_fields(f"/proc/{pid}")[0]
    except (FileNotFoundError, ProcessLookupError):
        return "X"


def within_time(load: Callable[[], Load], asked: float) -> Load:
    """The load of so many seconds. Raises WorkloadError as require_time_went_on() does."""
    began = time.monotonic()
    made = load()
    require_time_went_on(asked, made, time.monotonic() - began)
    return made


def require_time_went_on(asked: float, load: Load, wall: float) -> None:
    """Raises WorkloadError where the load took far longer than asked, or we far longer than the load: one of us was
    suspended, and the CPU time is of another time than the requests."""
    patience = limits.read().grace_seconds / 8
    if load.seconds > 3 * asked + patience:
        raise WorkloadError(f"the load took {load.seconds:.1f} s instead of {asked:.0f} s")
    if wall > load.seconds + patience:
        raise WorkloadError(f"the lab was suspended: {wall:.1f} s passed around {load.seconds:.1f} s of load")


def is_busy(spent: dict[str, float], use: list[CpuUse], wall: float) -> bool:
    """Processes that are not the trial's took much of its CPUs. Observers of a trial would be among them."""
    return spent.get(OTHERS, 0.0) > OTHERS_TOLERATED * wall * len(use)
