"""What the trials say: means and ratios to base, each with a 95 % interval.

The unit of resampling is the ABBA block. Each arm has two trials in it, mirrored in time, so that a linear drift of the
machine cancels in the block's mean and only there: single trials of a block aren't independent of each other.
"""

import warnings
from collections.abc import Iterator
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import DegenerateDataWarning, bootstrap, sem

from records.metrics import COST, METRICS, THROUGHPUT
from records.run import Effect, Run
from records.trials import BASE, CONTROL, Trial

MIN_BLOCKS = 5  # too few to resample: two blocks allow three different means
COLUMNS = [
    "workload",
    "variant",
    "cores",
    "metric",
    "estimate",
    "ci_low",
    "ci_high",
    "n",
    "ratio_to_base",
    "ratio_low",
    "ratio_high",
]

_SETTING = ["workload", "cores", "metric"]
_SEED = 20141  # any constant will do: the same trials then give the same intervals
_UNKNOWN = (np.nan, np.nan)


def estimate(trials: list[Trial]) -> pd.DataFrame:
    """A row per workload, arm, core count and metric that any trial has, in the units of records.metrics.

    n counts the blocks behind the estimate. Ratios take only blocks that are complete for both the arm and base, and
    are NaN where a value isn't positive. Intervals of fewer than MIN_BLOCKS are NaN, as is that of base's own ratio.
    """
    rows = [row for setting, blocks in _blocks(trials).groupby(_SETTING) for row in _rows(setting, blocks)]
    return pd.DataFrame(rows, columns=COLUMNS)


def comparisons(trials: list[Trial], variants: list[str]) -> pd.DataFrame:
    """Throughput and cost of each variant over those of each one before it, other than base, which estimate() has.

    A row per workload, core count and pair that both have, with columns workload, cores, metric, variant, over, ratio,
    low, high. They are computed like the ratios to base, and are NaN in the same cases.
    """
    pairs = [(arm, reference) for reference, arm in combinations(variants, 2) if BASE not in (arm, reference)]
    rows = []
    for setting, blocks in _blocks(trials).groupby(_SETTING):
        arms, whole = _by_arm(blocks), blocks.trials.max()
        rows += [
            (*setting, arm, reference, ratio, *bounds)
            for arm, reference in pairs
            if setting[-1] in (*THROUGHPUT, COST) and {arm, reference} <= arms.keys()
            for ratio, bounds in [_contrast([arm], [reference], arms, whole)]
        ]
    return pd.DataFrame(rows, columns=[*_SETTING, "variant", "over", "ratio", "low", "high"])


def contrasts(trials: list[Trial], effects: dict[str, Effect]) -> pd.DataFrame:
    """Throughput of some variants over that of others, multiplied on either side.

    A row per workload, core count and effect whose variants all have trials there, with columns workload, cores,
    metric, effect, ratio, low, high. They are computed like the ratios to base, and are NaN in the same cases.
    """
    rows = []
    for setting, blocks in _blocks(trials).groupby(_SETTING):
        arms, whole = _by_arm(blocks), blocks.trials.max()
        rows += [
            (*setting, name, ratio, *bounds)
            for name, effect in effects.items()
            if setting[-1] in THROUGHPUT and {*effect.of, *effect.over} <= arms.keys()
            for ratio, bounds in [_contrast(effect.of, effect.over, arms, whole)]
        ]
    return pd.DataFrame(rows, columns=[*_SETTING, "effect", "ratio", "low", "high"])


class OffControl(NamedTuple):
    """An A/A control that differs from base, although nothing differed. As a string it is a sentence."""

    workload: str
    cores: int
    metric: str
    ratio: float
    low: float
    high: float

    def __str__(self) -> str:
        return (
            f"{place(self.workload, self.cores)}: the A/A control is off, base against itself gives "
            f"{self.ratio:.3f} ({self.low:.3f}–{self.high:.3f}) in {self.metric}."
        )


def off_controls(summary: pd.DataFrame) -> list[OffControl]:
    """The A/A controls that differ from base; none if all is well."""
    checked = controls(summary)
    off = checked[(checked.ratio_low > 1) | (checked.ratio_high < 1)]
    columns = ["workload", "cores", "metric", "ratio_to_base", "ratio_low", "ratio_high"]
    return [OffControl(*row) for row in off[columns].itertuples(index=False, name=None)]


def controls(summary: pd.DataFrame) -> pd.DataFrame:
    """The throughput of the A/A controls whose ratio to base has an interval."""
    served = throughput(summary)
    return served[served.variant == CONTROL].dropna(subset="ratio_low")


def throughput(summary: pd.DataFrame) -> pd.DataFrame:
    """The rows of a summary that say how much was served: at most one per workload, arm and core count."""
    return summary[summary.metric.isin(THROUGHPUT)]


def outcome(run: Run, summary: pd.DataFrame) -> pd.DataFrame:
    """The rows of a summary that answer what the run asked: how much was served or, at a given rate, at what cost."""
    at_a_rate = summary.workload.isin(run.options.rates)
    return summary[summary.metric.isin(THROUGHPUT) & ~at_a_rate | (summary.metric == COST) & at_a_rate]


def each(table: pd.DataFrame) -> Iterator[Any]:
    """Each row of a table, with the columns as its attributes."""
    yield from table.itertuples()


def place(workload: str, cores: int) -> str:
    """How sentences name a setting, as in "nginx on 2 cores"."""
    return f"{workload} on {counted(cores)}"


def counted(number: int, thing: str = "core") -> str:
    """In words: "1 core", "2 cores"."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def _blocks(trials: list[Trial]) -> pd.DataFrame:
    """A row per setting, arm and block: the mean, the smallest value, the mean logarithm and how many trials."""
    values = pd.DataFrame(
        [
            (trial.workload, trial.cores, metric, trial.arm, trial.block, value)
            for trial in trials
            for metric, value in trial.metrics.items()
        ],
        columns=[*_SETTING, "variant", "block", "value"],
    )
    values["log"] = np.log(values.value.where(values.value > 0))
    return values.groupby([*_SETTING, "variant", "block"]).agg(
        mean=("value", "mean"), lowest=("value", "min"), log=("log", "mean"), trials=("value", "size")
    )


def _rows(setting: tuple[Any, ...], blocks: pd.DataFrame) -> Iterator[tuple[Any, ...]]:
    workload, cores, metric = setting
    arms, whole = _by_arm(blocks), blocks.trials.max()
    for arm, part in arms.items():
        ratio, bounds = _contrast([arm], [BASE], arms, whole)
        yield (
            workload,
            arm,
            cores,
            metric,
            part["mean"].mean(),
            *_possible(interval(part["mean"].to_numpy()), metric),
            len(part),
            ratio,
            *bounds,
        )


def _possible(bounds: tuple[float, float], metric: str) -> np.ndarray:
    """An interval, cut to the possible values of the metric: nothing is below 0, and no percentage above 100.

    Bootstrap-t does not know these limits, and goes past one when means are close to it. The true mean lies within
    them, so the cut interval holds the true mean as often as the whole one does.
    """
    return np.clip(bounds, 0, METRICS[metric].largest)


def _by_arm(blocks: pd.DataFrame) -> dict[str, pd.DataFrame]:
    return {str(arm): part.droplevel([*_SETTING, "variant"]) for arm, part in blocks.groupby("variant")}


def _contrast(
    of: list[str], over: list[str], arms: dict[str, pd.DataFrame], whole: int
) -> tuple[float, tuple[float, float]]:
    """An interrupted block may have an arm's first trial without its mirror image; such a half would bring drift in."""
    if not {*of, *over} <= arms.keys():
        return np.nan, _UNKNOWN
    blocks = pd.concat({arm: arms[arm][arms[arm].trials == whole] for arm in {*of, *over}}, axis=1, join="inner")
    if blocks.empty or min(blocks[arm].lowest.min() for arm in {*of, *over}) <= 0:
        return np.nan, _UNKNOWN
    logs = (sum(blocks[arm].log for arm in of) - sum(blocks[arm].log for arm in over)).to_numpy()
    with np.errstate(over="ignore"):  # a bound beyond all numbers is infinite
        return np.exp(logs.mean()), _UNKNOWN if of == over else tuple(np.exp(interval(logs)))


def interval(values: np.ndarray) -> tuple[float, float]:
    """The 95 % bootstrap-t interval of the mean (Efron and Tibshirani: An Introduction to the Bootstrap, 12.5).

    With a handful of blocks the percentile and BCa intervals are far too narrow: of 10 normal values they miss the true
    mean twice as often as they say. Resampling the t statistic keeps the promise.
    """
    if len(values) < MIN_BLOCKS:
        return _UNKNOWN
    mean, error = values.mean(), sem(values)
    if error <= 1e-12 * max(1, abs(mean)):  # no spread to resample
        return mean, mean

    def t(sample: Any, axis: int) -> Any:
        spread = sem(sample, axis)
        some = spread > 1e-9 * error  # a sample of equal values says nothing of the distance in units of its spread
        return np.where(some, (sample.mean(axis) - mean) / np.where(some, spread, 1), np.nan)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DegenerateDataWarning)  # of scipy's own interval, for such samples; not used
        drawn = bootstrap((values,), t, method="percentile", rng=np.random.default_rng(_SEED)).bootstrap_distribution
    low, high = np.nanquantile(drawn, (0.975, 0.025))
    return mean - low * error, mean - high * error
