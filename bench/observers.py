"""What a trial can leave beside its metrics."""

from functools import partial
from pathlib import Path

from bench.profile import profiled
from bench.trial import Observe
from bench.walk import walked
from records.profile import stacks_path
from records.walk import walk_path


def observer(observes: str | None, run_directory: Path, trial: int) -> Observe | None:
    """The observer of a trial, for Bench.run(). It leaves its file in the run directory.

    None where a probe observes (probes/trial.py): "calls" is a metric.
    """
    if observes == "profile":
        return partial(profiled, stacks_path(run_directory, trial))
    return partial(walked, walk_path(run_directory, trial)) if observes == "walk" else None
