"""Estimates from trials: means and ratios to base, each with a 95 % interval.

Verdicts rest on ratios. Each half of an ABBA block has one trial of each arm, so it gives a pair: the logarithm of one
arm's value less that of another arm. A slow change of the machine that favours one arm in one half favours the other
arm in the next half, and the order of the arms is drawn anew for each block. So pairs lie symmetrically around the
effect, and a ratio is the pseudomedian of its pairs.

A mean describes one arm. Trials of the same block are alike, so the interval of a mean comes from the blocks' means.

All blocks of a testbed share what is peculiar to that testbed. So in a run on several testbeds each testbed counts as
one value: the ratio is the mean of the testbeds' ratios, with Student's interval. analysis/ledger.py treats runs alike.
"""

from collections import Counter
from collections.abc import Iterator
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from analysis.statistics import (
    MIN_BLOCKS,
    MIN_CLUSTERS,
    Centre,
    Values,
    mean_interval,
    mean_of_clusters,
    pseudomedian,
)
from records.metrics import COSTS, METRICS, THROUGHPUT
from records.run import Effect, Run
from records.trials import BASE, Trial

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
    "p",
]

_SETTING, _BLOCK = ["workload", "cores", "metric"], ["testbed", "block"]
_NO_RATIO = Centre(np.nan, np.nan, np.nan, np.nan)


def estimate(trials: list[Trial]) -> pd.DataFrame:
    """A row per workload, arm, core count and metric that any trial has, in the units of records.metrics.

    n counts the blocks behind the estimate. Ratios use only blocks that are complete for both the arm and base, and
    are NaN if a value is not positive. Intervals from fewer than MIN_BLOCKS blocks are NaN, and so is the interval of
    base's own ratio. p is the probability of a ratio at least as far from 1 if the arms were equal. It is not adjusted
    for the number of ratios.
    """
    rows = [row for setting, arms in _settings(trials) for row in _rows(setting, arms)]
    return pd.DataFrame(rows, columns=COLUMNS)


def comparisons(trials: list[Trial], variants: list[str]) -> pd.DataFrame:
    """Throughput and cost of each variant over those of each variant before it. Ratios to base are in estimate().

    A row per workload, core count, metric and pair of variants that both have trials there, with columns workload,
    cores, metric, variant, over, ratio, low, high, p. The ratios are computed like the ratios to base, and are NaN in
    the same cases.
    """
    pairs = [(arm, reference) for reference, arm in combinations(variants, 2) if BASE not in (arm, reference)]
    rows = []
    for setting, arms in _settings(trials):
        rows += [
            (*setting, arm, reference, *_contrast([arm], [reference], arms))
            for arm, reference in pairs
            if setting[-1] in (*THROUGHPUT, *COSTS) and {arm, reference} <= arms.keys()
        ]
    return pd.DataFrame(rows, columns=[*_SETTING, "variant", "over", "ratio", "low", "high", "p"])


def contrasts(trials: list[Trial], effects: dict[str, Effect]) -> pd.DataFrame:
    """The ratio of each effect: the product of some variants' throughputs over the product of other variants'.

    A row per workload, core count and effect whose variants all have trials there, with columns workload, cores,
    metric, effect, ratio, low, high. The ratios are computed like the ratios to base, and are NaN in the same cases.
    """
    rows = []
    for setting, arms in _settings(trials):
        rows += [
            (*setting, name, *_contrast(effect.of, effect.over, arms)[:3])
            for name, effect in effects.items()
            if setting[-1] in THROUGHPUT and {*effect.of, *effect.over} <= arms.keys()
        ]
    return pd.DataFrame(rows, columns=[*_SETTING, "effect", "ratio", "low", "high"])


def throughput(summary: pd.DataFrame) -> pd.DataFrame:
    """The rows of a summary that have the throughput: at most one per workload, arm and core count."""
    return summary[summary.metric.isin(THROUGHPUT)]


def outcome(run: Run, summary: pd.DataFrame) -> pd.DataFrame:
    """The rows of a summary that have the run's outcome: the throughput or, at a given rate, the cost per request.

    Empty for a run that observed its trials: observing costs time, and such a run asks where things happen.
    """
    if run.options.observes:
        return summary[:0]
    at_a_rate = summary.workload.map(run.options.at_rate).astype(bool)
    return summary[summary.metric.isin(THROUGHPUT) & ~at_a_rate | (summary.metric == run.options.cost) & at_a_rate]


def each(table: pd.DataFrame) -> Iterator[Any]:
    """Each row of a table, with the columns as its attributes."""
    yield from table.itertuples()


def paired_logs(trials: list[Trial], of: list[str], over: list[str]) -> dict[tuple[str, int, str], Values]:
    """The pairs at each setting: (workload, core count, metric) -> logarithms, complete blocks x 2 halves.

    Each is the sum of the logarithms of some arms' values, less that of other arms. A setting without a complete block,
    or with a value that is not positive, is left out.
    """
    found = {setting: _pairs(of, over, arms) for setting, arms in _settings(trials)}
    return {setting: pairs.to_numpy() for setting, pairs in found.items() if len(pairs)}


# The values at one setting. Arm -> a table with a row per testbed and block, and a column per half; NaN: no trial.
Arms = dict[str, pd.DataFrame]


def _settings(trials: list[Trial]) -> Iterator[tuple[tuple[str, int, str], Arms]]:
    """Each (workload, core count, metric) that the trials have, with the values of its arms."""
    seen: Counter[tuple[Any, ...]] = Counter()
    rows = []
    for trial in sorted(trials, key=lambda trial: trial.index):
        run_twice = (trial.workload, trial.cores, trial.arm, trial.testbed, trial.block)
        half = seen[run_twice]
        seen[run_twice] += 1  # a failed trial counts, so that the other trial of its arm keeps its half
        rows += [(*run_twice, half, metric, value) for metric, value in trial.metrics.items()]
    values = pd.DataFrame(rows, columns=["workload", "cores", "arm", *_BLOCK, "half", "metric", "value"])
    if values.empty:
        return
    by_half = values.set_index([*_SETTING, "arm", *_BLOCK, "half"]).value.unstack("half").reindex(columns=[0, 1])
    setting: Any
    for setting, part in by_half.groupby(_SETTING):
        yield setting, {str(arm): halves.droplevel([*_SETTING, "arm"]) for arm, halves in part.groupby("arm")}


def _rows(setting: tuple[str, int, str], arms: Arms) -> Iterator[tuple[Any, ...]]:
    workload, cores, metric = setting
    for arm, halves in arms.items():
        blocks = halves.mean(axis=1)
        testbeds = blocks.groupby("testbed").mean().to_numpy()
        means, least = (testbeds, MIN_CLUSTERS) if len(testbeds) > 1 else (blocks.to_numpy(), MIN_BLOCKS)
        yield (
            workload,
            arm,
            cores,
            metric,
            means.mean(),
            *_possible(means, least, metric),
            len(blocks),
            *_contrast([arm], [BASE], arms),
        )


def _possible(means: Values, least: int, metric: str) -> tuple[float, float]:
    """The interval of a mean, cut to the possible values of the metric: none is below 0, no percentage above 100.

    Student's interval does not know these limits, and exceeds one if the values are close to it. The true mean lies
    within the limits, so the cut interval holds it as often as the whole interval does.
    """
    low, high = np.clip(mean_interval(means, least), 0, METRICS[metric].largest)
    return low, high


def _contrast(of: list[str], over: list[str], arms: Arms) -> Centre:
    """The ratio of some arms to others, from the blocks that are complete for all of these arms.

    Its bounds and p are NaN with fewer than MIN_BLOCKS such blocks on one testbed, and with several but fewer than
    MIN_CLUSTERS testbeds.
    """
    logs = _pairs(of, over, arms)
    if of == over:
        return _NO_RATIO._replace(value=1.0 if len(logs) else np.nan)
    if logs.empty:
        return _NO_RATIO
    centres = [pseudomedian(of_one.to_numpy().ravel()) for _, of_one in logs.groupby("testbed")]
    together = mean_of_clusters(np.array([centre.value for centre in centres]))
    centre, is_enough = (centres[0], logs.size >= 2 * MIN_BLOCKS) if len(centres) == 1 else (together, True)
    with np.errstate(over="ignore"):  # a ratio that is too large for a float becomes infinite
        value, low, high = np.exp(centre[:3])
    return Centre(value, low, high, centre.p) if is_enough else _NO_RATIO._replace(value=value)


def _pairs(of: list[str], over: list[str], arms: Arms) -> pd.DataFrame:
    """The pairs of paired_logs() at one setting, as a table; empty if there are none.

    Blocks that were interrupted are left out: a first trial without its second one would bring in the machine's drift.
    """
    nothing = pd.DataFrame()
    if not {*of, *over} <= arms.keys():
        return nothing
    blocks = pd.concat({arm: arms[arm] for arm in {*of, *over}}, axis=1, join="inner").dropna()
    if blocks.empty or (blocks <= 0).any(axis=None):
        return nothing
    logs: Any = np.log(blocks)
    found: pd.DataFrame = sum(logs[arm] for arm in of) - sum(logs[arm] for arm in over)
    return found
