"""What base takes at full speed, for loads that are a share of it."""

from collections.abc import Callable
from statistics import median

from bench.schedule import Slot
from records.run import Run
from records.trials import BASE, Trial
from workloads import WORKLOADS
from workloads.process import WorkloadError

TRIALS = 4  # their median


def key(workload: str, cores: int) -> str:
    """Of Run.capacities."""
    return f"{workload}/{cores}"


def with_capacities(run: Run, measured: Callable[[Slot], Trial]) -> Run:
    """The run with those capacities that it needs and lacks. measured: runs a trial at full speed.

    Raises WorkloadError where a trial fails twice.
    """
    if run.options.share is None and run.options.latency_share is None:
        return run
    settings = [(workload, cores) for workload in run.options.workloads for cores in run.options.cores]
    new = {
        key(workload, cores): median(_served(measured, workload, cores) for _ in range(TRIALS))
        for workload, cores in settings
        if key(workload, cores) not in run.capacities
    }
    return run.model_copy(update={"capacities": {**run.capacities, **new}})


def _served(measured: Callable[[Slot], Trial], workload: str, cores: int) -> float:
    slot = Slot(-1, -1, workload, BASE, False, cores)
    try:
        trial = measured(slot)
    except WorkloadError:  # once more, as every trial that fails
        trial = measured(slot)
    return trial.metrics[WORKLOADS[workload].metric]
