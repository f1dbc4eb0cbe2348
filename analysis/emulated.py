"""Runs in an emulated guest: metrics that depend on time are left out before anything is computed from the trials."""

from records.metrics import METRICS
from records.run import Run
from records.trials import Trial

BANNER = (
    "Measured in an emulated guest: no timing. An emulator runs one CPU after the other, each as slowly as it "
    "happens to. So there is no throughput, latency, CPU time or contention here, and no comparison of them; which "
    "core did what is real."
)
_EMULATED = "emulated"  # the first word of the fingerprint's entry "guest" in such a guest


def is_emulated(run: Run) -> bool:
    """Whether an emulated guest measured the run. Older runs record nothing about guests, and were in none."""
    return run.fingerprint.get("guest", "no").startswith(_EMULATED)


def sound(run: Run, trials: list[Trial]) -> list[Trial]:
    """The trials with all their metrics or, if an emulated guest ran them, without metrics that depend on time."""
    if not is_emulated(run):
        return trials
    return [
        trial.model_copy(
            update={"metrics": {name: value for name, value in trial.metrics.items() if not METRICS[name].timed}}
        )
        for trial in trials
    ]
