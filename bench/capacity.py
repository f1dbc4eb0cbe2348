"""The capacity: how many requests per second base takes in an open loop. Some loads are a share of the capacity.

In a closed loop at full speed one wait returns many events, so a request costs less there than in an open loop. A share
of the closed loop's rate may therefore be more than the server takes. So base is also loaded in an open loop, at a part
of the closed loop's rate. The capacity is the rate at which requests of the open loop's cost would fill the server's
CPUs.
"""

from collections.abc import Callable
from statistics import median

from bench.cpu import busy_share
from bench.schedule import Slot
from records.run import Run
from records.trials import BASE, Trial
from workloads import WORKLOADS
from workloads.process import WorkloadError

TRIALS = 4  # in the closed loop, and as many in the open loop; the median of each counts
PART = 0.4  # of the closed loop's rate: two CPUs, shared with the load generator, are then busy for 80 to 90 % of time

Measured = Callable[[Slot, float | None], Trial]  # runs a trial at a rate; None: at full speed


def key(workload: str, cores: int) -> str:
    """The key of a setting in Run.capacities, such as "nginx/2"."""
    return f"{workload}/{cores}"


def with_capacities(run: Run, measured: Measured) -> Run:
    """Measure the capacities that the run needs and lacks. Returns the run with them. Raises WorkloadError if a trial
    fails twice."""
    if run.options.share is None and run.options.latency_share is None:
        return run
    settings = [(workload, cores) for workload in run.options.workloads for cores in run.options.cores]
    new = {
        key(workload, cores): _capacity(Slot(-1, -1, workload, BASE, False, cores), run, measured)
        for workload, cores in settings
        if key(workload, cores) not in run.capacities
    }
    return run.model_copy(update={"capacities": {**run.capacities, **new}})


def _capacity(slot: Slot, run: Run, measured: Measured) -> float:
    cpus = next(placement.server_cpus for placement in run.placements if placement.cores == slot.cores)
    metric = WORKLOADS[slot.workload].metric
    closed = median(_trial(slot, None, measured).metrics[metric] for _ in range(TRIALS))
    calm = [_trial(slot, PART * closed, measured) for _ in range(TRIALS)]
    return median(trial.metrics[metric] / busy_share([use for use in trial.cpu if use.cpu in cpus]) for trial in calm)


def _trial(slot: Slot, rate: float | None, measured: Measured) -> Trial:
    try:
        return measured(slot, rate)
    except WorkloadError:  # a trial that fails is run once more
        return measured(slot, rate)
