"""What may be claimed: the role of each ratio, its adjusted probability, and the difference that would have been seen.

An experiment names one ratio beforehand, the primary outcome. It is judged by its own interval. The other ratios to
base in the run's outcome, of each variant at each setting, are judged together (Holm). All further ratios are
exploratory: with so many of them, some intervals leave out 1 by chance.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from analysis.estimates import each, outcome
from analysis.statistics import CONFIDENCE, holm, resolution
from analysis.words import place
from records.metrics import METRICS, THROUGHPUT
from records.run import Run
from records.trials import BASE, CONTROL

PRIMARY, ADJUSTED, EXPLORATORY = "primary", "adjusted", "exploratory"
HIGHER, LOWER, NO_DIFFERENCE, UNKNOWN = "higher", "lower", "no difference", "unknown"
_COLUMNS = ["workload", "cores", "variant", "over", "metric", "ratio", "low", "high", "p"]


def judge(run: Run, summary: pd.DataFrame, compared: pd.DataFrame) -> pd.DataFrame:
    """A row for each ratio of estimates.estimate() and estimates.comparisons(), but for those of the A/A control.

    Columns: workload, cores, variant, over, metric, ratio, low, high, p, role, p_adjusted (NaN if exploratory),
    verdict, and seen_from: the smallest relative difference that would have been seen, such as 0.05.
    """
    to_base = summary[~summary.variant.isin([BASE, CONTROL])].assign(over=BASE)
    to_base = to_base.rename(columns={"ratio_to_base": "ratio", "ratio_low": "low", "ratio_high": "high"})
    rows = pd.concat([to_base[_COLUMNS], compared[_COLUMNS]], ignore_index=True)
    rows = rows.astype(dict.fromkeys(("ratio", "low", "high", "p"), float))
    main = _is_primary(run, rows)
    asked = (rows.over == BASE) & rows.metric.isin(_outcome_metrics(run, summary)) & ~main & rows.p.notna()
    rows["role"] = np.select([main, asked], [PRIMARY, ADJUSTED], EXPLORATORY)
    rows["p_adjusted"] = rows.p.where(main)
    rows.loc[asked, "p_adjusted"] = holm(rows.p[asked].to_numpy(float))
    rows["verdict"] = [_verdict(row) for row in each(rows)]
    rows["seen_from"] = [resolution(row.low, row.high) - 1 for row in each(rows)]
    return rows


def _outcome_metrics(run: Run, summary: pd.DataFrame) -> set[str]:
    return set(outcome(run, summary).metric)


def _is_primary(run: Run, rows: pd.DataFrame) -> "pd.Series[bool]":
    named = run.options.primary
    if named is None:
        return pd.Series(False, index=rows.index)
    metrics = (
        [named.metric] if named.metric else [run.options.cost] if run.options.at_rate(named.workload) else THROUGHPUT
    )
    return (
        (rows.workload == named.workload)
        & (rows.cores == max(run.options.cores))
        & (rows.variant == named.of)
        & (rows.over == named.over)
        & rows.metric.isin(metrics)
    )


def _verdict(row: Any) -> str:
    if math.isnan(row.low):
        return UNKNOWN
    if row.role == ADJUSTED and row.p_adjusted > 1 - CONFIDENCE:
        return NO_DIFFERENCE
    return HIGHER if row.low > 1 else LOWER if row.high < 1 else NO_DIFFERENCE


def reached(verdicts: pd.DataFrame) -> float:
    """How precise a run is: the half width of the primary outcome's interval, as a part of the ratio.

    Without a primary outcome the widest interval of the adjusted ratios counts. Infinite without any such interval.
    """
    for role in (PRIMARY, ADJUSTED):
        rows = verdicts[(verdicts.role == role) & verdicts.low.notna()]
        if len(rows):
            return float(np.sqrt(rows.high / rows.low).max() - 1)
    return math.inf


class Control(NamedTuple):
    """The A/A control at one setting, in the run's outcome. Its str() is a sentence."""

    workload: str
    cores: int
    metric: str
    ratio: float
    low: float
    high: float
    claimed: float  # the smallest difference that is claimed at this setting, as a ratio above 1; NaN: none is claimed

    @property
    def width(self) -> float:
        """By how much two equal arms may differ at this setting, as a ratio above 1."""
        return math.sqrt(self.high / self.low)

    @property
    def is_off(self) -> bool:
        """Whether the control's interval leaves out 1, although the control runs as base does."""
        return self.low > 1 or self.high < 1

    @property
    def is_wide(self) -> bool:
        """Whether two equal arms may differ by more than the smallest difference that is claimed at this setting."""
        return self.width > self.claimed

    @property
    def fails(self) -> bool:
        return self.is_off or self.is_wide

    def __str__(self) -> str:
        called = METRICS[self.metric].called
        found = f"base against itself gives {self.ratio:.3f} ({self.low:.3f}–{self.high:.3f}) in {called}"
        seen = f"differences below {resolution(self.low, self.high) - 1:.1%} would often be missed".replace("%", " %")
        if self.is_off:
            return f"{place(self.workload, self.cores)}: the A/A control is off, {found}."
        if self.is_wide:
            claimed = f"{100 * (self.claimed - 1):.1f} %"
            return f"{place(self.workload, self.cores)}: the A/A control is wider than the claim of {claimed}, {found}."
        return f"{place(self.workload, self.cores)}: {found}; {seen}."


def controls(run: Run, summary: pd.DataFrame, verdicts: pd.DataFrame) -> list[Control]:
    """The A/A controls of a run that have an interval."""
    return list(_controls(run, summary, verdicts))


def _controls(run: Run, summary: pd.DataFrame, verdicts: pd.DataFrame) -> Iterator[Control]:
    rows = outcome(run, summary)
    claims = verdicts[verdicts.verdict.isin([HIGHER, LOWER]) & (verdicts.role != EXPLORATORY)]
    for row in each(rows[rows.variant == CONTROL].dropna(subset="ratio_low")):
        here = claims[
            (claims.workload == row.workload) & (claims.cores == row.cores) & (claims.metric == row.metric)
        ].ratio
        smallest = math.exp(np.abs(np.log(here)).min()) if len(here) else math.nan
        yield Control(row.workload, row.cores, row.metric, row.ratio_to_base, row.ratio_low, row.ratio_high, smallest)
