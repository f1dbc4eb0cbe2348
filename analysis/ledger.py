"""What many runs say together: their A/A controls, and the mean of each ratio over the runs that asked the same.

Both are computed from the runs themselves, so nothing has to be kept beside them. All blocks of a run share what is
peculiar to its day. So the estimate of each run counts as one value, however many blocks are behind it.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from analysis.emulated import is_emulated
from analysis.estimates import each, outcome
from analysis.results import Result, results_in
from analysis.statistics import mean_of_clusters
from analysis.words import counted, place
from records.metrics import METRICS
from records.run import RUN, RecordError
from records.trials import BASE, CONTROL

COLUMNS = ["started", "experiment", "question", "workload", "cores", "variant", "metric", "ratio", "low", "high"]
_SAME = ["question", "experiment", "workload", "cores", "variant", "metric"]


def runs_below(directories: list[Path]) -> tuple[list[Result], list[str]]:
    """The runs in these directories at any depth, in the order in which they began, and why others are left out.

    A run with copies counts once. Runs in emulated guests are left out without a word. Raises RecordError if there is
    no run.
    """
    found, left_out = {}, []
    for path in sorted({path.parent for directory in directories for path in directory.rglob(RUN)}):
        try:
            (result,) = results_in(path)
        except RecordError as error:
            left_out.append(f"left out: {error}")
        else:
            if not is_emulated(result.run):
                found[result.run.started, result.run.options.seed] = result
    if not found:
        raise RecordError(f"there is no run with trials in {', '.join(map(str, directories))}")
    return [found[key] for key in sorted(found)], left_out


def ratios(results: list[Result]) -> pd.DataFrame:
    """A row for each arm and setting of each run that has an interval: its ratio to base, in the run's outcome."""
    rows = [
        (
            *(result.run.started, result.run.options.experiment, result.run.options.question),
            *(row.workload, row.cores, row.variant, row.metric, row.ratio_to_base, row.ratio_low, row.ratio_high),
        )
        for result in results
        for row in each(outcome(result.run, result.summary).dropna(subset="ratio_low"))
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def pooled(found: pd.DataFrame) -> pd.DataFrame:
    """A row for each ratio that several runs have: its mean over the runs (of logarithms), Student's interval of that
    mean, the number of runs, and their spread.

    The interval is NaN for fewer than MIN_CLUSTERS runs. The spread is one standard deviation, as a part of the ratio.
    """
    rows = []
    key: Any
    for key, group in found.groupby(_SAME, sort=False):
        logs = np.log(group.ratio.to_numpy())
        if len(logs) > 1:
            rows.append((*key[1:], *np.exp(mean_of_clusters(logs)[:3]), len(logs), np.expm1(logs.std(ddof=1))))
    return pd.DataFrame(rows, columns=[*_SAME[1:], "ratio", "low", "high", "runs", "spread"])


def sentences(found: pd.DataFrame) -> Iterator[str]:
    """A sentence for each A/A control, one on how many are off, and one for each ratio that several runs have."""
    controls = found[found.variant == CONTROL]
    off = (controls.low > 1) | (controls.high < 1)
    for row, is_off in zip(each(controls), off):
        yield f"{row.started[:10]} {row.experiment}, {_said(row)}{', off' if is_off else ''}"
    if len(controls):
        yield _how_many(int(off.sum()), len(controls), found.started.nunique())
    for row in each(pooled(found)):
        yield f"{counted(row.runs, 'run')} of {row.experiment}, spread {100 * row.spread:.1f} %: {_said(row)}"


def _said(row: Any) -> str:
    interval = "no interval" if np.isnan(row.low) else f"{row.low:.3f}–{row.high:.3f}"
    ratio = f"{row.variant} over {BASE} {row.ratio:.3f} ({interval}) in {METRICS[row.metric].called}"
    return f"{place(row.workload, row.cores)}: {ratio}"


def _how_many(off: int, controls: int, runs: int) -> str:
    interval = binomtest(off, controls).proportion_ci(method="wilson")
    share, low, high = (f"{100 * part:.1f}" for part in (off / controls, interval.low, interval.high))
    told = f"{off} of {counted(controls, 'control')} in {counted(runs, 'run')}"
    return f"off, with an interval that leaves out 1: {told}, {share} % ({low}–{high}); by chance it would be 5 %"
