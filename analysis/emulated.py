"""Runs in an emulated guest: what depends on time is left out before anything is estimated, compared or drawn."""

from bench.record import Run, Trial

BANNER = (
    "Measured in an emulated guest: no timing. An emulator runs one CPU after the other, each as slowly as it "
    "happens to. So there is no throughput, latency, CPU time or contention here, and no comparison of them; which "
    "core did what is real."
)
TIMED_METRICS = {
    "cps",
    "rps",
    "latency_p50_ms",
    "latency_p99_ms",
    "latency_max_ms",
    "cpu_us_per_request",
    "contentions_per_connection",
}
UNTIMED_FIGURES = {"locality", "listen-table", "active-connections", "flow-deliver", "related"}  # kinds
_EMULATED = "emulated"  # how bench.fingerprint begins its word on such guests


def is_emulated(run: Run) -> bool:
    """Runs from before there were guests say nothing of them."""
    return run.fingerprint.get("guest", "no").startswith(_EMULATED)


def sound(run: Run, trials: list[Trial]) -> list[Trial]:
    """The trials with the metrics that mean something: all of them, but for those of an emulated guest."""
    if not is_emulated(run):
        return trials
    return [
        trial.model_copy(
            update={
                "metrics": {metric: value for metric, value in trial.metrics.items() if metric not in TIMED_METRICS}
            }
        )
        for trial in trials
    ]
