"""Percentiles of latency at a load that all variants can carry. A latency runs from when the request was due."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures.style import curve, look, note, plain_ticks, side_by_side
from analysis.figures.view import View
from analysis.words import place
from records.metrics import METRICS, P50, P99, P999

_PERCENTILES = (P50, P99, P999)


def draw(view: View) -> tuple[Figure, pd.DataFrame]:
    """Axes for each workload and core count, the percentiles side by side."""
    rows = view.summary[view.summary.metric.isin(_PERCENTILES)]
    settings = [(workload, cores) for workload in view.workloads for cores in view.cores]
    figure = Figure(figsize=(8, 3.4 * len(settings)), layout="constrained")
    for (workload, cores), (axes,) in zip(settings, figure.subplots(len(settings), 1, squeeze=False)):
        axes.set_title(f"{place(workload, cores)}: {view.spec.title}", loc="left")
        _percentiles(axes, view, rows[(rows.workload == workload) & (rows.cores == cores)])
    note(figure, "Means over the trials with 95 % intervals; control is base against itself.", view.shared())
    return figure, rows


def _percentiles(axes: Axes, view: View, rows: pd.DataFrame) -> None:
    at = {metric: position for position, metric in enumerate(_PERCENTILES)}
    for arm, offset in side_by_side(view.arms, 0.25):
        points = rows[rows.variant == arm]
        if len(points):
            drawn, x = {**look(view, arm), "linestyle": "none"}, points.metric.map(at) + offset
            curve(axes, drawn, x, points.estimate, points.ci_low, points.ci_high, label=view.label(arm))
    axes.set_yscale("log")
    plain_ticks(axes.yaxis)
    axes.set_xticks(list(at.values()), [METRICS[metric].heading.partition(",")[0] for metric in at])
    axes.set_ylabel("latency, ms")
    if axes.get_legend_handles_labels()[0]:  # something was drawn: not all trials failed
        axes.legend(title="95 % intervals", alignment="left")
