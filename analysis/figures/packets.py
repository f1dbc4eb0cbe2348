"""What a request takes: packets at the server's links by direction, and system calls and context switches of the
server."""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures.style import BAR, QUIET, look, note, say
from analysis.figures.view import View
from analysis.words import NOT_AVAILABLE, NOT_MEASURED, place
from records.metrics import CALLS, PACKETS_IN, PACKETS_OUT, SWITCHES

# Heading of a column -> the metrics that the column adds up.
_COLUMNS = {
    "packets to the server, and from it": (PACKETS_IN, PACKETS_OUT),
    "system calls": (CALLS,),
    "context switches": (SWITCHES,),
}
_METRICS = [metric for metrics in _COLUMNS.values() for metric in metrics]
_LINE_INCHES = 0.3


def draw(view: View) -> tuple[Figure, pd.DataFrame]:
    """A row of axes per workload, at the largest core count, with a line for each variant."""
    rows = view.summary[view.summary.metric.isin(_METRICS) & view.summary.variant.isin(view.variants)]
    rows = rows[rows.cores == view.cores[-1]]
    height = 1.2 + _LINE_INCHES * len(view.variants)
    figure = Figure(figsize=(11, height * len(view.workloads)), layout="constrained")
    grid = figure.subplots(len(view.workloads), len(_COLUMNS), sharey=True, squeeze=False)
    for workload, line in zip(view.workloads, grid):
        of_workload = rows[rows.workload == workload].set_index(["metric", "variant"])
        for (name, metrics), axes in zip(_COLUMNS.items(), line):
            axes.set_xlabel(name)
            _column(axes, view, of_workload, metrics)
        line[0].set_title(f"{place(workload, view.cores[-1])}, per request", loc="left")
        line[0].set_yticks(range(len(view.variants)), map(view.label, view.variants))
        line[0].set_ylim(len(view.variants) - 0.5, -0.5)
    note(
        figure,
        "The server's network devices count the packets, handshakes and acknowledgements among them.",
        "Connections that are open when the load ends have packets, but are no requests.",
    )
    return figure, rows[["workload", "variant", "cores", "metric", "estimate", "ci_low", "ci_high"]]


def _column(axes: Axes, view: View, rows: Any, metrics: tuple[str, ...]) -> None:
    missing = [metric for metric in metrics if metric not in rows.index]
    if missing:
        say(axes, f"{NOT_AVAILABLE}: {view.run.unavailable.get(missing[0], NOT_MEASURED)}")
        return
    for y, variant in enumerate(view.variants):
        if all((metric, variant) in rows.index for metric in metrics):
            _line(axes, y, look(view, variant)["color"], [rows.loc[(metric, variant)] for metric in metrics])
    axes.margins(x=0.25)
    axes.set_xlim(left=0)
    axes.grid(visible=False, axis="y")


def _line(axes: Axes, y: int, colour: tuple[float, ...], parts: list[Any]) -> None:
    """Draw a sum as a bar of its parts, each paler than the one before and with its interval, and the sum as a number
    behind the bar."""
    total = 0.0
    for number, part in enumerate(parts):
        axes.barh(y, part.estimate, left=total, color=colour, alpha=0.9 - 0.4 * number, height=0.65)
        if len(parts) > 1:
            axes.text(total + part.estimate / 2, y, f"{part.estimate:.2f}", ha="center", va="center", fontsize="small")
        reach = [[part.estimate - part.ci_low], [part.ci_high - part.estimate]]
        total += part.estimate
        axes.errorbar(total, y, xerr=reach, fmt="none", ecolor=QUIET, **BAR)
    axes.annotate(f"{total:.2f}", (total, y), (8, 0), textcoords="offset points", va="center", fontsize="small")
