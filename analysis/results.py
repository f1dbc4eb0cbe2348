"""A run with all that its trials say, computed once for tables, figures, report and terminal alike."""

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
    """A run, its trials, and what they say."""

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
        """analysis.verdicts.judge() of all its ratios."""
        return judge(self.run, self.summary, self.compared)

    @cached_property
    def controls(self) -> list[Control]:
        """Its A/A controls that have an interval."""
        return controls(self.run, self.summary, self.verdicts)


def result(directory: Path, run: Run, trials: list[Trial]) -> Result:
    """The result of these trials."""
    return Result(directory, run, trials, estimate(trials))


def results_in(directory: Path) -> list[Result]:
    """Of the run in a directory or, of a sweep that ran several experiments, of each in the order they began.

    Raises RecordError when the directory holds no run, a damaged one, or one without trials.
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
    """As results_in() has it, but with the estimates of summary.csv, whatever its age: quicker."""
    return Result(directory, *_recorded(directory), pd.read_csv(directory / SUMMARY, float_precision="round_trip"))


def stored_result(directory: Path) -> Result:
    """As kept_result() has it if summary.csv is newer than the trials, else computed."""
    stored = directory / SUMMARY
    if stored.exists() and stored.stat().st_mtime >= (directory / TRIALS).stat().st_mtime:
        return kept_result(directory)
    return result(directory, *_recorded(directory))
