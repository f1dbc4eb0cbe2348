"""The share of packets that softirq handled on the core whose application reads them, by kind of connection."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from analysis.figures.style import curve, look, note, say, side_by_side
from analysis.figures.view import View
from analysis.words import NOT_AVAILABLE, NOT_MEASURED, called
from records.metrics import ACTIVE_LOCAL, PASSIVE_LOCAL

_KINDS = {PASSIVE_LOCAL: "clients'", ACTIVE_LOCAL: "its own"}  # metric -> whose connections: passive and active ones


def draw(view: View) -> tuple[Figure, pd.DataFrame]:
    """Axes for each workload and kind of connection that it has. One core is left out: all reads are local there."""
    rows = view.summary[view.summary.metric.isin(_KINDS) & view.summary.variant.isin(view.variants)]
    panels = [
        (workload, metric)
        for workload in view.workloads
        for metric in _KINDS
        if metric == PASSIVE_LOCAL or metric in set(rows[rows.workload == workload].metric)
    ]
    figure = Figure(figsize=(1.6 + 2.4 * len(panels), 3.6), layout="constrained")
    for (workload, metric), axes in zip(panels, figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]):
        axes.set_title(f"{called(workload)},\n{_KINDS[metric]} connections", loc="left")
        _local_share(axes, view, rows[(rows.workload == workload) & (rows.metric == metric)], metric)
    figure.axes[0].set_ylabel("handled on the reader's core")
    handles = {label: handle for axes in figure.axes for handle, label in zip(*axes.get_legend_handles_labels())}
    if handles:
        figure.legend(handles=list(handles.values()), labels=list(handles), loc="outside right upper")
    note(figure, "Bars: 95 % intervals.")
    return figure, rows[["workload", "variant", "cores", "metric", "estimate", "ci_low", "ci_high"]]


def _local_share(axes: Axes, view: View, rows: pd.DataFrame, metric: str) -> None:
    if rows.empty or metric in view.run.unavailable:
        say(axes, f"{NOT_AVAILABLE}: {view.run.unavailable.get(metric, NOT_MEASURED)}")
        return
    several = [cores for cores in view.cores if cores > 1] or view.cores
    positions = {cores: position for position, cores in enumerate(several)}
    for arm, offset in side_by_side(view.variants, 0.25):
        points, drawn = rows[(rows.variant == arm) & rows.cores.isin(several)], look(view, arm)
        if len(points):
            x, bounds = points.cores.map(positions) + offset, (points.ci_low, points.ci_high)
            curve(axes, {**drawn, "linestyle": "none"}, x, points.estimate, *bounds, label=view.label(arm))
    axes.set_xticks(list(positions.values()), [f"{cores}" for cores in positions])
    axes.set_xlim(-0.5, len(positions) - 0.5)
    axes.set_xlabel("server cores")
    axes.set_ylim(-3, 103)
    axes.yaxis.set_major_formatter(PercentFormatter(decimals=0, symbol=" %"))
