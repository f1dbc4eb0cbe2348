"""Servers, and ways of sharing out connections, below each other: what each serves, what that costs, and where reads
happen."""

from typing import Any, NamedTuple

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.estimates import each
from analysis.figures.style import QUIET, bar, look, note
from analysis.figures.view import View
from analysis.statistics import MIN_BLOCKS
from analysis.words import called
from records.metrics import P99, PASSIVE_LOCAL, THROUGHPUT, UNEVENNESS

_LINE_INCHES = 0.27
_ROOM_FOR_VALUES = 0.3  # this part of the axis's length is added for the numbers
_RATIO = ["ratio_to_base", "ratio_low", "ratio_high"]
_LEVEL = ["estimate", "ci_low", "ci_high"]


class Column(NamedTuple):
    """What a column of the figure shows."""

    heading: str
    metrics: tuple[str, ...]  # of these metrics, the one that a workload has is shown
    values: list[str]  # columns of the summary: a value and its interval
    even: float  # the value at which nothing is gained or lost: a line is drawn there
    text: str  # the format of the number


def draw(view: View) -> tuple[Figure, pd.DataFrame]:
    """A row for each workload and arm, at the largest core count. Ratios are to base of the same workload; a ratio
    without an interval is not drawn."""
    summary = view.summary[view.summary.cores == view.cores[-1]]
    rows = [
        (workload, arm)
        for workload in view.workloads
        for arm in view.arms
        if ((summary.workload == workload) & (summary.variant == arm)).any()
    ]
    columns = _columns(view)
    shown = pd.concat([_shown(summary, column, rows) for column in columns], ignore_index=True)
    figure = Figure(figsize=(14, 1.8 + _LINE_INCHES * max(len(rows), 4)), layout="constrained")
    figure.suptitle(view.spec.title, x=0.005, ha="left", fontweight="bold")
    for axes, column in zip(figure.subplots(1, len(columns), sharey=True), columns):
        _draw_column(axes, view, column, shown[shown.column == column.heading], rows)
    figure.axes[0].set_yticks(range(len(rows)), _labels(view, rows))
    figure.axes[0].set_ylim(len(rows) - 0.5, -0.5)
    few = f"Ratios take {MIN_BLOCKS} complete blocks." if shown[shown.ratio].value.isna().all() else ""
    note(figure, "95 % intervals. control is base against itself.", few, view.shared([view.cores[-1]]))
    return figure, shown.drop(columns=["y", "ratio"])


def _columns(view: View) -> list[Column]:
    share = view.run.options.latency_share
    at = f"\nat {share:.0%} of what base takes" if share is not None else ""
    return [
        Column("served per second,\nover base", THROUGHPUT, _RATIO, 1, "{:.3f}"),
        Column("CPU time per request,\nover base", (view.run.options.cost,), _RATIO, 1, "{:.3f}"),
        Column(f"p99, over base{at}", (P99,), _RATIO, 1, "{:.2f}"),
        Column("local reads, %", (PASSIVE_LOCAL,), _LEVEL, 100, "{:.1f}"),
        Column("busiest core's requests\nover the mean core's", (UNEVENNESS,), _LEVEL, 1, "{:.2f}"),
    ]


def _shown(summary: pd.DataFrame, column: Column, rows: list[tuple[str, str]]) -> pd.DataFrame:
    """The data of a column: a row for each workload and arm that has the column's metric."""
    places = {row: y for y, row in enumerate(rows)}
    found = summary[summary.metric.isin(column.metrics)]
    values = found[column.values].set_axis(["value", "low", "high"], axis=1)
    if column.values == _RATIO:
        values = values.mask(values.low.isna())  # no claim without an interval
    return pd.concat([found[["workload", "variant", "metric"]], values], axis=1).assign(
        column=column.heading,
        ratio=column.values == _RATIO,
        y=[places[row.workload, row.variant] for row in each(found)],
    )


def _draw_column(axes: Axes, view: View, column: Column, shown: pd.DataFrame, rows: list[tuple[str, str]]) -> None:
    axes.set_title(column.heading, loc="left", fontsize="small")
    axes.axvline(column.even, color=QUIET, linewidth=1, zorder=1)
    for row in each(shown.dropna(subset="value")):
        _draw_value(axes, column, row, look(view, row.variant))
    for y in range(1, len(rows)):
        if rows[y][0] != rows[y - 1][0]:
            axes.axhline(y - 0.5, color="0.8", linewidth=0.8)
    axes.grid(visible=False, axis="y")
    low, high = axes.get_xlim()
    axes.set_xlim(low, high + _ROOM_FOR_VALUES * (high - low))


def _draw_value(axes: Axes, column: Column, row: Any, drawn: dict[str, Any]) -> None:
    if row.low == row.low:  # it has an interval
        bar(axes, row.y, row.low, row.high, drawn["color"])
    axes.plot(row.value, row.y, **drawn)
    axes.annotate(
        column.text.format(row.value),
        (1.0, row.y),
        xycoords=("axes fraction", "data"),
        ha="right",
        va="center",
        fontsize="x-small",
        color=QUIET,
    )


def _labels(view: View, rows: list[tuple[str, str]]) -> list[str]:
    """The labels of the rows. The server's name stands beside its first row alone."""
    first = dict(reversed(rows))
    return [
        f"{called(workload)}:  {view.label(arm)}" if first[workload] == arm else view.label(arm)
        for workload, arm in rows
    ]
