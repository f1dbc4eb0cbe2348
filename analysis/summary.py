"""What runs say, for readers who know neither the statistics nor the kernel. Every sentence is computed."""

from collections.abc import Iterator
from typing import Any

import pandas as pd

from analysis.estimates import controls, counted, each, off_controls, place, throughput
from analysis.results import Result
from records.metrics import ACTIVE_LOCAL, COST, METRICS, PASSIVE_LOCAL, THROUGHPUT
from records.run import Run
from records.trials import BASE

OURS = "fastsocket"


def plain_summary(results: list[Result]) -> list[str]:
    """Sentences on all results together; none where there is nothing to say.

    If several runs answer the same question, the run with the most blocks is quoted.
    """
    measured = sorted((result for result in results if result.trials), key=lambda result: -result.run.options.blocks)
    workloads = list(dict.fromkeys(workload for result in measured for workload in result.run.options.workloads))
    sentences = []
    for workload in workloads:
        for question in (_served, _cost, _local):
            sentences += _first(question(result.run, result.summary, workload) for result in measured)
    return sentences + _controls(measured) + [absence(result.run) for result in results if result.run.options.why_not]


def absence(run: Run) -> str:
    """Why a run has no trials."""
    return f"{run.options.experiment} is not available here: {run.options.why_not}."


def _first(answers: Iterator[str | None]) -> list[str]:
    return next(([answer] for answer in answers if answer), [])


def _row(summary: pd.DataFrame, workload: str, cores: int, variant: str, *metrics: str) -> Any:
    """The row of one of these metrics, or None."""
    rows = summary[
        (summary.workload == workload)
        & (summary.cores == cores)
        & (summary.variant == variant)
        & summary.metric.isin(metrics)
    ]
    return None if rows.empty else next(each(rows))


def _served(run: Run, summary: pd.DataFrame, workload: str) -> str | None:
    """Only where servers took all they could: at a given rate they all serve the same."""
    if workload in run.options.rates or run.options.observes:
        return None
    cores = max(run.options.cores)
    row = _row(throughput(summary), workload, cores, OURS, *THROUGHPUT)
    if row is None or pd.isna(row.ratio_low):
        return None
    doubt = _doubt(summary, workload, cores)
    return f"{place(workload, cores)} answered {_more(row)} with Fastsocket than without.{doubt}"


def _cost(run: Run, summary: pd.DataFrame, workload: str) -> str | None:
    if workload not in run.options.rates or run.options.observes:
        return None
    cores = max(run.options.cores)
    row = _row(summary, workload, cores, OURS, COST)
    if row is None or pd.isna(row.ratio_low):
        return None
    return f"At the same load, {place(workload, cores)} needed {_more(row, 'CPU time')} with Fastsocket than without."


def _doubt(summary: pd.DataFrame, workload: str, cores: int) -> str:
    off = any((control.workload, control.cores) == (workload, cores) for control in off_controls(summary))
    return " But there the server differed from itself, too, so trust it less." if off else ""


def _more(row: Any, thing: str = "requests") -> str:
    """A ratio as a change in percent, as far as its interval allows to speak of one."""
    low, high = 100 * (row.ratio_low - 1), 100 * (row.ratio_high - 1)
    if low > 0:
        return f"{100 * (row.ratio_to_base - 1):.1f} % more {thing} (95 % interval {low:.1f} to {high:.1f} %)"
    fewer = "less" if thing == "CPU time" else "fewer"
    if high < 0:
        return f"{100 * (1 - row.ratio_to_base):.1f} % {fewer} {thing} (95 % interval {-high:.1f} to {-low:.1f} %)"
    return f"neither clearly more nor {fewer} {thing} (between {-low:.1f} % {fewer} and {high:.1f} % more)"


def _local(run: Run, summary: pd.DataFrame, workload: str) -> str | None:
    cores = max(run.options.cores)
    said = []
    for metric in (PASSIVE_LOCAL, ACTIVE_LOCAL):
        base, ours = (_row(summary, workload, cores, variant, metric) for variant in (BASE, OURS))
        if base and ours:
            said.append(
                f"{ours.estimate:.1f} % instead of {base.estimate:.1f} % of the data of {METRICS[metric].called}"
            )
    if cores == 1 or not said:
        return None
    return f"With Fastsocket, {place(workload, cores)} read {' and '.join(said)} on the core that had received it."


def _controls(measured: list[Result]) -> list[str]:
    """How far to trust all that: how many equal arms came out different."""
    compared = sum(len(controls(result.summary)) for result in measured)
    off = sum(len(off_controls(result.summary)) for result in measured)
    if not compared:
        return []
    comparisons = f"{counted(compared, 'comparison')} of a server with itself, which must find no difference"
    return [f"Of {comparisons}, {off} found one; by chance it would be about {compared / 20:.0f}."]
