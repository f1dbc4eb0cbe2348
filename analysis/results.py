"""The result of a run: the run and all estimates from its trials. Tables, figures, report and terminal share it."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from analysis.emulated import sound
from analysis.estimates import comparisons, estimate
from analysis.verdicts import Control, controls, judge
from records.run import RecordError, Run, read_run, runs_in
from records.trials import TRIALS, Trial, trials_of

SUMMARY = "summary.csv"


@dataclass(frozen=True)
class Result:
    """A run, its trials, and the estimates from them."""

    directory: Path
    run: Run
    trials: list[Trial]
    summary: pd.DataFrame  # analysis.estimates.estimate(trials)

    @cached_property
    def compared(self) -> pd.DataFrame:
        """analysis.estimates.comparisons() of the run's variants."""
        return comparisons(self.trials, self.run.options.variants)

    @cached_property
    def verdicts(self) -> pd.DataFrame:
        """analysis.verdicts.judge() of all the run's ratios."""
        return judge(self.run, self.summary, self.compared)

    @cached_property
    def controls(self) -> list[Control]:
        """The run's A/A controls that have an interval."""
        return controls(self.run, self.summary, self.verdicts)


def result(directory: Path, run: Run, trials: list[Trial]) -> Result:
    """Compute the result of these trials."""
    return Result(directory, run, trials, estimate(trials))


def results_in(directory: Path) -> list[Result]:
    """Compute the result of the run in a directory or, if a sweep ran several experiments there, of each run in the
    order in which they began.

    Raises RecordError if the directory holds no run, a damaged run, or a run without finished trials.
    """
    return [_read(part) for part in runs_in(directory)]


def _recorded(directory: Path) -> tuple[Run, list[Trial]]:
    run = read_run(directory)
    return run, sound(run, trials_of(directory, run))


def _read(directory: Path) -> Result:
    run, trials = _recorded(directory)
    if all(trial.failed for trial in trials) and not run.options.why_not:
        raise RecordError(f"{directory / TRIALS} holds no finished trial yet; go on with lab.py sweep --resume")
    return result(directory, run, trials)


def kept_result(directory: Path) -> Result:
    """The result of the run in a directory, with the estimates of its summary.csv, however old that file is.

    This is quicker than results_in(), which computes the estimates.
    """
    return Result(directory, *_recorded(directory), pd.read_csv(directory / SUMMARY, float_precision="round_trip"))


def stored_result(directory: Path) -> Result:
    """The result of the run in a directory: by kept_result() if summary.csv is as new as the trials, else computed."""
    stored = directory / SUMMARY
    if stored.exists() and stored.stat().st_mtime >= (directory / TRIALS).stat().st_mtime:
        return kept_result(directory)
    return result(directory, *_recorded(directory))
