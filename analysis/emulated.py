"""Runs in an emulated guest: metrics that depend on time are left out before anything is computed from them."""

from records.metrics import METRICS
from records.run import Run
from records.trials import Trial

BANNER = (
    "Measured in an emulated guest: no timing. An emulator runs one CPU after the other, each as slowly as it "
    "happens to. So there is no throughput, latency, CPU time or contention here, and no comparison of them; which "
    "core did what is real."
)
_EMULATED = "emulated"  # the first word of setup.fingerprint on such guests


def is_emulated(run: Run) -> bool:
    """Whether the run was in one. Runs from before there were guests say nothing of them."""
    return run.fingerprint.get("guest", "no").startswith(_EMULATED)


def sound(run: Run, trials: list[Trial]) -> list[Trial]:
    """The trials with the metrics that mean something: all metrics, unless an emulated guest ran the trials."""
    if not is_emulated(run):
        return trials
    return [
        trial.model_copy(
            update={"metrics": {name: value for name, value in trial.metrics.items() if not METRICS[name].timed}}
        )
        for trial in trials
    ]
