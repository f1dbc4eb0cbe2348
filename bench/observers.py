"""What happens during the load of a trial: a profile or a walk is recorded, or a worker is stopped for a moment."""

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
    """The observer of a trial, for Bench.run(); None: there is none.

    An observer writes a file in the run directory, or stops a worker for a moment. "calls" needs no observer: it is a
    metric, which a probe counts (probes/trial.py). trial: the trial's index.
    """
    if options.observes == "profile":
        return partial(profiled, stacks_path(run_directory, trial))
    if options.observes == "walk":
        return partial(walked, walk_path(run_directory, trial))
    return partial(paused, options.seconds / 2, options.pause / 1000) if options.pause else None
