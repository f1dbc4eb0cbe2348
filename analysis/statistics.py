"""The statistics behind all verdicts. analysis/study.py tries them on noise, and docs/statistics.md has the results."""

from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import mannwhitneyu, norm, sem, t, ttest_1samp

Values = NDArray[np.float64]

MIN_BLOCKS = 5  # fewer blocks get no interval: it would be of little use
MIN_CLUSTERS = 3  # fewer runs, or testbeds of a run, get no interval: they tell too little of how they differ
CONFIDENCE = 0.95
POWER = 0.9  # the probability with which a run sees its smallest visible difference (resolution())
_TAIL = (1 - CONFIDENCE) / 2
_EXACT = 500  # for more values, the normal approximation of their signed ranks has the same first four digits
_RESOLUTION = 1 + norm.ppf(POWER) / norm.ppf(1 - _TAIL)  # smallest visible difference in half widths of an interval


class Centre(NamedTuple):
    """The centre of values, the bounds of its 95 % interval, and the probability of such values if it were 0."""

    value: float
    low: float
    high: float
    p: float


def pseudomedian(values: Values) -> Centre:
    """The Hodges-Lehmann estimate of the centre of values that are independent and symmetric around it.

    It is the median of all means of two values, and a few outliers hardly move it. The interval and p agree, because
    both come from Wilcoxon's signed ranks (Hollander, Wolfe, Chicken: Nonparametric Statistical Methods, 3.2).
    Fewer than six values have no 95 % interval: their bounds are infinite.
    """
    means, place = means_of_two(values), place_of_bounds(len(values))
    low, high = np.partition(means, [place - 1, -place])[[place - 1, -place]] if place else (-np.inf, np.inf)
    above = (means > 0).sum() + (means == 0).sum() / 2
    p = 2 * _signed_rank_chance(len(values), int(min(above, len(means) - above)))
    return Centre(float(np.median(means)), float(low), float(high), min(1.0, p))


def shift(first: Values, second: Values) -> Centre:
    """How much larger the second values are than the first ones: the Hodges-Lehmann estimate of the shift.

    The interval and p come from the test of Mann and Whitney (Hollander, Wolfe, Chicken: Nonparametric Statistical
    Methods, 4.2). The interval uses the normal approximation, which is close if each side has at least ten values.
    """
    differences = np.sort(np.subtract.outer(second, first), axis=None)
    pairs, several = len(differences), len(first) + len(second) + 1
    cut = max(1, int(pairs / 2 - norm.ppf(1 - _TAIL) * (pairs * several / 12) ** 0.5))
    p = float(mannwhitneyu(first, second).pvalue)
    return Centre(float(np.median(differences)), float(differences[cut - 1]), float(differences[-cut]), p)


def means_of_two(values: Values) -> Values:
    """The means of all pairs of values along the last axis, each value paired with itself, too."""
    sums = [values[..., place:] + values[..., place : place + 1] for place in range(values.shape[-1])]
    return np.concatenate(sums, axis=-1) / 2


def place_of_bounds(count: int) -> int:
    """The place of the lower bound among the ordered means of two values, counted from 1; 0: there is no bound.

    The upper bound has the same place, counted from the end. count: how many values there are.
    """
    if count > _EXACT:
        return int(_signed_rank_normal(count).ppf(_TAIL) + 0.5)
    return int(np.searchsorted(_signed_rank_cdf(count), _TAIL, side="right"))


def _signed_rank_chance(count: int, most: int) -> float:
    """The probability that the sum of _signed_rank_cdf() is at most this large."""
    return float(_signed_rank_normal(count).cdf(most + 0.5) if count > _EXACT else _signed_rank_cdf(count)[most])


def _signed_rank_normal(count: int) -> Any:
    """The normal distribution with the mean and standard deviation of the sum of _signed_rank_cdf()."""
    return norm(count * (count + 1) / 4, (count * (count + 1) * (2 * count + 1) / 24) ** 0.5)


@cache
def _signed_rank_cdf(count: int) -> Values:
    """The cumulative distribution of the sum of those ranks 1 … count whose sign is positive, if all signs are equally
    likely. Element s is the probability of a sum of at most s."""
    chances = np.ones(1)
    for rank in range(1, count + 1):
        chances = (np.pad(chances, (0, rank)) + np.pad(chances, (rank, 0))) / 2
    return chances.cumsum()


def mean_interval(values: Values, least: int = MIN_BLOCKS) -> tuple[float, float]:
    """Student's 95 % interval of the mean of values. Its bounds are NaN for fewer values than least."""
    if len(values) < least:
        return np.nan, np.nan
    half = t.ppf(1 - _TAIL, len(values) - 1) * sem(values)
    return values.mean() - half, values.mean() + half


def mean_of_clusters(values: Values) -> Centre:
    """The mean of logarithms with Student's interval, where each run or testbed has one value.

    The interval and p are NaN for fewer than MIN_CLUSTERS values.
    """
    low, high = mean_interval(values, MIN_CLUSTERS)
    p = float(ttest_1samp(values, 0).pvalue) if len(values) >= MIN_CLUSTERS else np.nan
    return Centre(float(values.mean()), low, high, p)


def resolution(low: float, high: float) -> float:
    """The smallest difference, as a factor above 1, that nine of ten runs like this one would find.

    low, high: the interval of a ratio in this run.
    """
    return float((high / low) ** (_RESOLUTION / 2))


def holm(p: Values) -> Values:
    """The p values, adjusted for their number (Holm: A Simple Sequentially Rejective Multiple Test Procedure, 1979)."""
    order, adjusted = np.argsort(p, kind="stable"), np.empty(len(p))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(np.sort(p) * np.arange(len(p), 0, -1)))
    return adjusted
