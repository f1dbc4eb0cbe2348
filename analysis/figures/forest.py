"""A forest plot: a line for each ratio, with its interval. Published ratios are hollow, and arrows at the edge of the
axis if they lie beyond it."""

from textwrap import fill
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.estimates import each
from analysis.figures.style import QUIET, Look, bar, plain_ticks, say
from analysis.statistics import MIN_BLOCKS

LINE_INCHES = 0.38
_MORE_INCHES = 0.17  # more height for each further line of a label
_LABEL_COLUMNS = 36
_TITLE_COLUMNS = 56
_WIDE = 4  # if the largest bound is more than so many times the smallest one, the axis is logarithmic
_PUBLISHED: Look = {"color": QUIET, "markerfacecolor": "none", "markersize": 7, "linestyle": "none"}


def draw(rows: pd.DataFrame, title: str, axis: str) -> tuple[Figure, Axes]:
    """Draw a forest plot. Returns the figure and its axes.

    rows: a line for each row, with columns group (groups are drawn apart), label, ratio, low, high, look (arguments of
    matplotlib's plot), published (NaN if nothing was published) and, optionally, remark. axis: the label of the x axis.
    """
    labels = [fill(label, _LABEL_COLUMNS) for label in rows.label]
    more = _MORE_INCHES * sum(label.count("\n") for label in labels)
    figure = Figure(figsize=(8.5, 1.5 + LINE_INCHES * max(len(rows), 3) + more), layout="constrained")
    axes = figure.subplots()
    axes.set_title(fill(title, _TITLE_COLUMNS), loc="left")
    if rows.empty:
        say(axes, f"No ratio has an interval: it takes {MIN_BLOCKS} complete blocks.")
        return figure, axes
    if max(1, rows.high.max()) > _WIDE * min(1, rows.low.min()):
        axes.set_xscale("log")
        plain_ticks(axes.xaxis)
    axes.axvline(1, color=QUIET, linewidth=1, zorder=1)
    for y, row in enumerate(each(rows)):
        _line(axes, y, row)
    _publish(axes, rows)
    _frame(axes, labels, rows.group.tolist())
    axes.set_xlabel(axis)
    return figure, axes


def _line(axes: Axes, y: int, row: Any) -> None:
    bar(axes, y, row.low, row.high, row.look["color"])
    axes.plot(row.ratio, y, **row.look)
    published = "" if pd.isna(row.published) else f"   published: {row.published:g}"
    axes.annotate(
        f"{row.ratio:.3f} ({row.low:.3f}–{row.high:.3f}){published}   {getattr(row, 'remark', '')}".rstrip(),
        (1.05, y),
        xycoords=("axes fraction", "data"),
        va="center",
        fontsize="small",
    )


def _publish(axes: Axes, rows: pd.DataFrame) -> None:
    """Draw the published ratios. The measured ones set the scale: a published one beyond it is an arrow at the edge."""
    low, high = axes.get_xlim()
    for y, published in enumerate(rows.published):
        if published <= high:
            axes.plot(published, y, marker="D", **_PUBLISHED)
        elif published > high:
            axes.plot(high, y, marker=">", clip_on=False, **_PUBLISHED)
    axes.set_xlim(low, high)


def _frame(axes: Axes, labels: list[str], groups: list[str]) -> None:
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    for y in range(1, len(groups)):
        if groups[y] != groups[y - 1]:
            axes.axhline(y - 0.5, color="0.8", linewidth=0.8)
    axes.grid(visible=False, axis="y")
