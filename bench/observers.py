"""What happens beside the load of a trial: what it leaves beside its metrics, and a worker that is stopped."""

from functools import partial
from pathlib import Path

from bench.pause import paused
from bench.profile import profiled
from bench.trial import Observe
from bench.walk import walked
from records.profile import stacks_path
from records.run import Options
from records.walk import walk_path


def observer(options: Options, run_directory: Path, trial: int) -> Observe | None:
    """The observer of a trial, for Bench.run(). It leaves its file in the run directory, or stops a worker.

    None where a probe observes (probes/trial.py): "calls" is a metric.
    """
    if options.observes == "profile":
        return partial(profiled, stacks_path(run_directory, trial))
    if options.observes == "walk":
        return partial(walked, walk_path(run_directory, trial))
    return partial(paused, options.seconds / 2, options.pause / 1000) if options.pause else None
