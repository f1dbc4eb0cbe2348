"""Compares two runs of the same experiment: does a variant bring less over base in the second run?

Two runs are not interleaved, and the machine differs from day to day. So their levels, such as connections per second,
cannot be compared. Ratios to base can: each variant is paired with base of its own run.
"""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from analysis.circumstances import differences
from analysis.estimates import each, outcome, paired_logs
from analysis.results import Result, results_in
from analysis.statistics import MIN_BLOCKS, resolution, shift
from analysis.verdicts import UNKNOWN
from analysis.words import place
from records.metrics import METRICS
from records.run import Options, Run
from records.trials import BASE


class CompareError(Exception):
    """Two runs that cannot be compared; the message says why."""

    exit_status = 2


@dataclass(frozen=True)
class Change:
    """A variant's ratio to base in the second run, over its ratio in the first run.

    change, low and high are turned so that below 1 is worse in any metric.
    """

    experiment: str
    workload: str
    cores: int
    variant: str
    metric: str
    role: str  # the role of the ratio in the second run: PRIMARY, ADJUSTED, … of analysis.verdicts
    first: float  # ratio to base in the first run
    second: float  # ratio to base in the second run
    change: float
    low: float  # bounds of the 95 % interval of change
    high: float
    seen_from: float  # the smallest relative change that would have been seen
    verdict: str  # REGRESSION, WORSE, SAME or BETTER

    def __str__(self) -> str:
        where = f"{place(self.workload, self.cores)}, {self.variant}: {METRICS[self.metric].called} over base"
        said = f"{where} went from {self.first:.3f} to {self.second:.3f}, {self.verdict}: "
        seen = f"; {100 * self.seen_from:.1f} % would have been seen" if self.verdict == SAME else ""
        return f"{said}{self.change:.3f} times as good ({self.low:.3f}–{self.high:.3f}{seen})."


REGRESSION, WORSE, SAME, BETTER = "a regression", "worse", "no difference", "better"


@dataclass(frozen=True)
class Comparison:
    """All changes between two runs, and warnings about the two runs for the reader."""

    fail_below: float
    warnings: list[str]
    changes: list[Change]

    @property
    def regressions(self) -> list[Change]:
        return [change for change in self.changes if change.verdict == REGRESSION]

    def as_json(self) -> dict[str, object]:
        return asdict(self) | {"regressions": len(self.regressions)}


def compare(first: Path, second: Path, fail_below: float) -> Comparison:
    """Compare the runs in two directories. A change whose interval lies below fail_below is a regression.

    Raises RecordError, and CompareError for runs of different experiments, for a run on several testbeds, or if the two
    runs have no interval for the same variant at the same setting.
    """
    runs = [_by_experiment(results_in(directory)) for directory in (first, second)]
    if runs[0].keys() != runs[1].keys():
        named = [", ".join(sorted(run)) for run in runs]
        raise CompareError(f"{first} is a run of {named[0]}, and {second} of {named[1]}: choose two of the same")
    pairs = [(runs[0][name], runs[1][name]) for name in runs[0]]
    for was, now in pairs:
        _require_same_question(was.run.options, now.run.options)
        _require_one_testbed(was, now)
    changes = [change for was, now in pairs for change in _changes(was, now, fail_below)]
    if not changes:
        raise CompareError(
            f"{first} and {second} have no variant at the same setting with {MIN_BLOCKS} complete blocks in both"
        )
    warnings = dict.fromkeys(warning for was, now in pairs for warning in _warnings(was.run, now.run))
    return Comparison(fail_below, list(warnings), changes)


def _by_experiment(results: list[Result]) -> dict[str, Result]:
    return {result.run.options.experiment: result for result in results if result.trials}


def _require_same_question(was: Options, now: Options) -> None:
    """Raises CompareError if the experiment has another load or other conditions in one of the runs."""
    if was.question != now.question:
        raise CompareError(f"{was.experiment} was another experiment before: {was.question}; and now: {now.question}")


def _require_one_testbed(*results: Result) -> None:
    """Raises CompareError for a run that several testbeds measured."""
    for result in results:
        if len({trial.testbed for trial in result.trials}) > 1:
            raise CompareError(f"{result.directory} was measured on several testbeds: choose two runs on one each")


def _warnings(was: Run, now: Run) -> Iterator[str]:
    yield from differences(was, now)
    if was.options.seconds != now.options.seconds:
        yield f"trials of {was.options.seconds} s before, and of {now.options.seconds} s now"


def _changes(was: Result, now: Result, fail_below: float) -> Iterator[Change]:
    metrics = set(outcome(now.run, now.summary).metric)
    roles = {
        (row.workload, row.cores, row.variant, row.metric): str(row.role)
        for row in each(now.verdicts)
        if row.over == BASE
    }
    for variant in now.run.options.variants:
        before, after = (paired_logs(result.trials, [variant], [BASE]) for result in (was, now))
        for setting in [setting for setting in after if setting in before and setting[2] in metrics]:
            pairs = before[setting].ravel(), after[setting].ravel()
            if variant != BASE and min(map(len, pairs)) >= 2 * MIN_BLOCKS:
                workload, cores, metric = setting
                sign = 1 if METRICS[metric].better == "higher" else -1
                centre = shift(sign * pairs[0], sign * pairs[1])
                change, low, high = (math.exp(value) for value in centre[:3])
                yield Change(
                    experiment=now.run.options.experiment,
                    workload=workload,
                    cores=cores,
                    variant=variant,
                    metric=metric,
                    role=roles.get((workload, cores, variant, metric), UNKNOWN),
                    first=_ratio(was, workload, cores, variant, metric),
                    second=_ratio(now, workload, cores, variant, metric),
                    change=change,
                    low=low,
                    high=high,
                    seen_from=resolution(low, high) - 1,
                    verdict=REGRESSION if high < fail_below else WORSE if high < 1 else BETTER if low > 1 else SAME,
                )


def _ratio(result: Result, workload: str, cores: int, variant: str, metric: str) -> float:
    rows = result.summary
    found = rows[
        (rows.workload == workload) & (rows.cores == cores) & (rows.variant == variant) & (rows.metric == metric)
    ]
    return float(found.ratio_to_base.iloc[0])
