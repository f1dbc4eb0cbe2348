"""The statistics of all verdicts. analysis/study.py tries them on noise, and docs/statistics.md has its tables."""

from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import mannwhitneyu, norm, sem, t, ttest_1samp

Values = NDArray[np.float64]

MIN_BLOCKS = 5  # fewer have no interval: it would be of little use
MIN_CLUSTERS = 3  # runs, or testbeds of a run: fewer tell too little of how they differ
CONFIDENCE = 0.95
POWER = 0.9  # of the smallest difference that a run could see
_TAIL = (1 - CONFIDENCE) / 2
_EXACT = 500  # values; for more, the normal approximation of their signed ranks has the same first four digits
_RESOLUTION = 1 + norm.ppf(POWER) / norm.ppf(1 - _TAIL)  # in half widths of an interval


class Centre(NamedTuple):
    """Where values lie, the bounds of its 95 % interval, and the probability of such values if it were 0."""

    value: float
    low: float
    high: float
    p: float


def pseudomedian(values: Values) -> Centre:
    """The Hodges-Lehmann estimate of the centre of values that are independent and symmetric around it.

    It is the median of all means of two values, and a few wild values hardly move it. Interval and p agree: both come
    from Wilcoxon's signed ranks (Hollander, Wolfe, Chicken: Nonparametric Statistical Methods, 3.2).
    Fewer than six values have no 95 % interval: their bounds are infinite.
    """
    means, place = means_of_two(values), place_of_bounds(len(values))
    low, high = np.partition(means, [place - 1, -place])[[place - 1, -place]] if place else (-np.inf, np.inf)
    above = (means > 0).sum() + (means == 0).sum() / 2
    p = 2 * _signed_rank_chance(len(values), int(min(above, len(means) - above)))
    return Centre(float(np.median(means)), float(low), float(high), min(1.0, p))


def shift(first: Values, second: Values) -> Centre:
    """By how much the second values lie above the first ones (Hodges and Lehmann; Mann and Whitney, same book, 4.2).

    The interval is by the normal approximation, which is close from ten values on either side on.
    """
    differences = np.sort(np.subtract.outer(second, first), axis=None)
    pairs, several = len(differences), len(first) + len(second) + 1
    cut = max(1, int(pairs / 2 - norm.ppf(1 - _TAIL) * (pairs * several / 12) ** 0.5))
    p = float(mannwhitneyu(first, second).pvalue)
    return Centre(float(np.median(differences)), float(differences[cut - 1]), float(differences[-cut]), p)


def means_of_two(values: Values) -> Values:
    """The mean of each two values along the last axis, and of each value with itself."""
    sums = [values[..., place:] + values[..., place : place + 1] for place in range(values.shape[-1])]
    return np.concatenate(sums, axis=-1) / 2


def place_of_bounds(count: int) -> int:
    """Which of the ordered means of two is the lower bound, counted from 1; the upper one, from the end. 0: none is."""
    if count > _EXACT:
        return int(_signed_rank_normal(count).ppf(_TAIL) + 0.5)
    return int(np.searchsorted(_signed_rank_cdf(count), _TAIL, side="right"))


def _signed_rank_chance(count: int, most: int) -> float:
    """That the sum below is no larger."""
    return float(_signed_rank_normal(count).cdf(most + 0.5) if count > _EXACT else _signed_rank_cdf(count)[most])


def _signed_rank_normal(count: int) -> Any:
    """The normal distribution with its mean and spread."""
    return norm(count * (count + 1) / 4, (count * (count + 1) * (2 * count + 1) / 24) ** 0.5)


@cache
def _signed_rank_cdf(count: int) -> Values:
    """Of the sum of those ranks 1 … count whose sign is positive, where all signs are equally likely."""
    chances = np.ones(1)
    for rank in range(1, count + 1):
        chances = (np.pad(chances, (0, rank)) + np.pad(chances, (rank, 0))) / 2
    return chances.cumsum()


def mean_interval(values: Values, least: int = MIN_BLOCKS) -> tuple[float, float]:
    """Student's 95 % interval of a mean, such as that of blocks; NaN for fewer values than the least."""
    if len(values) < least:
        return np.nan, np.nan
    half = t.ppf(1 - _TAIL, len(values) - 1) * sem(values)
    return values.mean() - half, values.mean() + half


def mean_of_clusters(values: Values) -> Centre:
    """Of logarithms, one value of each run or testbed. Fewer than MIN_CLUSTERS have no interval, and no probability."""
    low, high = mean_interval(values, MIN_CLUSTERS)
    p = float(ttest_1samp(values, 0).pvalue) if len(values) >= MIN_CLUSTERS else np.nan
    return Centre(float(values.mean()), low, high, p)


def resolution(low: float, high: float) -> float:
    """The smallest factor that a run like this one would find in nine of ten runs, given the interval of a ratio."""
    return float((high / low) ** (_RESOLUTION / 2))


def holm(p: Values) -> Values:
    """Adjusted for how many there are (Holm: A Simple Sequentially Rejective Multiple Test Procedure, 1979)."""
    order, adjusted = np.argsort(p, kind="stable"), np.empty(len(p))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(np.sort(p) * np.arange(len(p), 0, -1)))
    return adjusted
