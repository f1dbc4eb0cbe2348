"""How much of a variant's gain goes with the interrupts between CPUs that it saves, and how much gain is left without
that saving."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import linregress, t

from analysis.figures.style import look, note, say
from analysis.figures.view import View
from analysis.words import NOT_AVAILABLE, place
from records.metrics import INTERRUPTS, THROUGHPUT
from records.trials import BASE, CONTROL

_LEAST = 5  # fewer points get no line
_COLUMNS = ["workload", "cores", "variant", "block", "fewer", "gain"]


class Line(NamedTuple):
    """The line gain = exp(intercept + slope * interrupts saved). The reaches are half widths of 95 % intervals."""

    slope: float
    slope_reach: float
    intercept: float
    intercept_reach: float


def draw(view: View) -> tuple[Figure, pd.DataFrame]:
    """Axes for each workload and core count: a point for each variant and block, and the line through all of them."""
    points = per_block(view)
    settings = [(workload, cores) for workload in view.workloads for cores in view.cores]
    figure = Figure(figsize=(8, 3.8 * len(settings)), layout="constrained")
    for (workload, cores), (axes,) in zip(settings, figure.subplots(len(settings), 1, squeeze=False)):
        axes.set_title(place(workload, cores), loc="left")
        _scatter(axes, view, points[(points.workload == workload) & (points.cores == cores)])
    note(figure, "A point is a variant in one block, over base in that block.", view.shared())
    return figure, points


def per_block(view: View) -> pd.DataFrame:
    """A row for each variant and block: fewer (base's interrupts per request less the variant's), and gain (the
    variant's throughput over base's)."""
    values = pd.DataFrame(
        [
            (trial.workload, trial.cores, trial.arm, trial.block, trial.metrics[INTERRUPTS], np.log(served))
            for trial in view.trials
            if INTERRUPTS in trial.metrics
            for served in [next(trial.metrics[name] for name in THROUGHPUT if name in trial.metrics)]
            if served > 0
        ],
        columns=["workload", "cores", "variant", "block", "interrupts", "log"],
    )
    means = values.groupby(["variant", "workload", "cores", "block"], as_index=False).mean()
    base = means[means.variant == BASE].drop(columns="variant")
    both = means[means.variant != BASE].merge(base, on=["workload", "cores", "block"], suffixes=("", "_of_base"))
    return both.assign(fewer=both.interrupts_of_base - both.interrupts, gain=np.exp(both.log - both.log_of_base))[
        _COLUMNS
    ]


def line(points: pd.DataFrame) -> Line | None:
    """The least-squares line of the logarithm of the gain on the interrupts saved. None if there are fewer than _LEAST
    points, or if all save the same."""
    if len(points) < _LEAST or points.fewer.nunique() < 2:
        return None
    fit = linregress(points.fewer, np.log(points.gain))
    reach = float(t.ppf(0.975, len(points) - 2))
    return Line(fit.slope, reach * fit.stderr, fit.intercept, reach * fit.intercept_stderr)


def _scatter(axes: Axes, view: View, points: pd.DataFrame) -> None:
    if points.empty:
        say(axes, f"{NOT_AVAILABLE}: no trial counted interrupts")
        return
    for arm in [*view.variants, CONTROL]:
        of_arm = points[points.variant == arm]
        if len(of_arm):
            axes.plot(of_arm.fewer, of_arm.gain, label=view.label(arm), **{**look(view, arm), "linestyle": "none"})
    if fitted := line(points):
        x = np.linspace(min(0, points.fewer.min()), points.fewer.max(), 50)
        axes.plot(x, np.exp(fitted.intercept + fitted.slope * x), color="0.3", linewidth=1)
        axes.text(0.02, 0.98, _said(fitted), transform=axes.transAxes, va="top", fontsize="small")
    axes.axhline(1, color="0.7", linewidth=0.8)
    axes.set_xlabel("interrupts between CPUs per request, fewer than base's")
    axes.set_ylabel("throughput over base")
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), fontsize="small")


def _said(fitted: Line) -> str:
    low, high = (np.exp(fitted.intercept + sign * fitted.intercept_reach) for sign in (-1, 1))
    least, each, most = (100 * np.expm1(fitted.slope + sign * fitted.slope_reach) for sign in (-1, 0, 1))
    return (
        f"without the difference: {np.exp(fitted.intercept):.3f} ({low:.3f}–{high:.3f})\n"
        f"per interrupt: {each:+.1f} % ({least:+.1f} to {most:+.1f})"
    )
