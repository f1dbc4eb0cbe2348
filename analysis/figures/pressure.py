"""What a proxy serves, and at what cost, while many other connections to its backend are open: a curve per variant."""

from textwrap import fill
from typing import NamedTuple

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures.style import curve, look, note, plain_ticks, say, side_by_side
from analysis.figures.view import View
from analysis.words import NOT_AVAILABLE, NOT_MEASURED, called
from records.metrics import ACTIVE_LOCAL, CONNECT_P50, CONNECT_P90, METRICS, THROUGHPUT

_REACH = 0.12  # part of a step of the axis, by which curves stand apart


class Panel(NamedTuple):
    """What one panel of the figure shows."""

    heading: str
    metrics: tuple[str, ...]  # of these metrics, the one that a workload has is shown
    scale: str = "log"


def draw(view: View) -> tuple[Figure, pd.DataFrame]:
    """A panel for each metric, at the largest core count. The workloads differ in how many connections are open."""
    rows = view.summary[(view.summary.cores == view.cores[-1]) & view.summary.variant.isin(view.variants)]
    panels = _panels(view)
    shown = rows[rows.metric.isin([metric for panel in panels for metric in panel.metrics])]
    figure = Figure(figsize=(13, 6.6), layout="constrained")
    figure.suptitle(view.spec.title, x=0.005, ha="left", fontweight="bold")
    grid = figure.subplots(2, 3).flat
    for panel, axes in zip(panels, grid):
        _draw_panel(axes, view, panel, shown[shown.metric.isin(panel.metrics)])
    figure.axes[-1].axis("off")
    figure.axes[-1].legend(*figure.axes[0].get_legend_handles_labels(), loc="center")
    note(
        figure,
        "Intervals are of 95 %; the axes are logarithmic, but for percentages.",
        "The open connections have the ports that each variant would have taken.",
        "connect() is timed in a process beside the proxy, after the load.",
        view.shared(),
    )
    return figure, shown[["workload", "variant", "cores", "metric", "estimate", "ci_low", "ci_high"]]


def _panels(view: View) -> list[Panel]:
    return [
        Panel("served per second", THROUGHPUT),
        Panel(METRICS[view.run.options.cost].heading, (view.run.options.cost,)),
        Panel("connections to the backend: local reads, %", (ACTIVE_LOCAL,), "linear"),
        Panel("connect(): median, µs", (CONNECT_P50,)),
        Panel("connect(): 90th percentile, µs", (CONNECT_P90,)),
    ]


def _draw_panel(axes: Axes, view: View, panel: Panel, rows: pd.DataFrame) -> None:
    axes.set_title(panel.heading, loc="left", fontsize="small")
    if rows.empty:
        say(axes, f"{NOT_AVAILABLE}: {view.run.unavailable.get(panel.metrics[0], NOT_MEASURED)}")
        return
    for arm, offset in side_by_side(view.variants, _REACH):
        points = rows[rows.variant == arm].set_index("workload").reindex(view.workloads)
        at = [place + offset for place in range(len(view.workloads))]
        curve(axes, look(view, arm), at, points.estimate, points.ci_low, points.ci_high, label=view.label(arm))
    axes.set_xticks(range(len(view.workloads)), [fill(called(workload), 15) for workload in view.workloads])
    if panel.scale == "linear":
        axes.set_ylim(0, 105)
    else:
        axes.set_yscale("log")
        plain_ticks(axes.yaxis)
