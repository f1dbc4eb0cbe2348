"""The share of packets that softirq handled on the core whose application reads them, by kind of connection."""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from analysis.figures.style import curve, look, say, side_by_side
from analysis.figures.view import View
from analysis.tables import NOT_AVAILABLE, NOT_MEASURED
from records.metrics import ACTIVE_LOCAL, PASSIVE_LOCAL

_KINDS = {PASSIVE_LOCAL: "passive connections", ACTIVE_LOCAL: "active connections"}


def draw(view: View) -> tuple[Figure, pd.DataFrame]:
    """A row of axes per workload; active connections only where some workload makes any."""
    rows = view.summary[view.summary.metric.isin(_KINDS) & view.summary.variant.isin(view.variants)]
    shown = [metric for metric in _KINDS if metric in set(rows.metric)] or list(_KINDS)[:1]
    figure = Figure(figsize=(2.2 + 4 * len(shown), 3.6 * len(view.workloads)), layout="constrained")
    grid = figure.subplots(len(view.workloads), len(shown), squeeze=False)
    for workload, line in zip(view.workloads, grid):
        of_workload = rows[rows.workload == workload]
        for metric, axes in zip(shown, line):
            if metric not in set(of_workload.metric) and len(of_workload):  # a server that opens no connections
                axes.set_axis_off()
                continue
            axes.set_title(f"{workload}: {_KINDS[metric]}", loc="left")
            _local_share(axes, view, of_workload[of_workload.metric == metric], metric)
    _legend(figure, grid)
    return figure, rows[["workload", "variant", "cores", "metric", "estimate", "ci_low", "ci_high"]]


def _local_share(axes: Axes, view: View, rows: pd.DataFrame, metric: str) -> None:
    if rows.empty or metric in view.run.unavailable:
        say(axes, f"{NOT_AVAILABLE}: {view.run.unavailable.get(metric, NOT_MEASURED)}")
        return
    positions = {cores: position for position, cores in enumerate(view.cores)}
    for arm, offset in side_by_side(view.variants, 0.25):
        of_arm = rows[rows.variant == arm]
        if of_arm.empty:
            continue
        curve(
            axes,
            {**look(view, arm), "linestyle": "none"},
            of_arm.cores.map(positions) + offset,
            of_arm.estimate,
            of_arm.ci_low,
            of_arm.ci_high,
            label=view.label(arm),
        )
    axes.set_xticks(list(positions.values()), [f"{cores}" for cores in positions])
    axes.set_xlim(-0.5, len(positions) - 0.5)
    axes.set_xlabel("server cores")
    axes.set_ylim(-3, 103)
    axes.yaxis.set_major_formatter(PercentFormatter(decimals=0, symbol=" %"))
    axes.set_ylabel("handled on their own core")


def _legend(figure: Figure, grid: Any) -> None:
    """One for all axes, with every arm that any of them shows."""
    handles = {label: handle for axes in grid.flat for handle, label in zip(*axes.get_legend_handles_labels())}
    if handles:
        figure.legend(
            handles=list(handles.values()),
            labels=list(handles),
            title="95 % intervals",
            alignment="left",
            loc="outside right upper",
        )
