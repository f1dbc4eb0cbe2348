"""Throughput by cores: this machine's curves, and the published ones beside them on axes of their own."""

from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.estimates import throughput
from analysis.figures.style import QUIET, core_axis, curve, look, name_curves, note, published_look, say, side_by_side
from analysis.figures.view import View

PUBLISHED = Path(__file__).parent.parent / "published" / "throughput_by_cores.csv"

_LABELS = {"cps": "thousand connections per second", "rps": "thousand requests per second"}
_SYSTEMS = ("base", "latest", "fastsocket")


def draw(view: View) -> tuple[Figure, pd.DataFrame]:
    """A row of axes per workload."""
    figure = Figure(figsize=(10.5, 4.2 * len(view.workloads)), layout="constrained")
    published, served = pd.read_csv(PUBLISHED), throughput(view.summary)
    for workload, (ours, theirs) in zip(view.workloads, figure.subplots(len(view.workloads), 2, squeeze=False)):
        _our_curves(ours, view, served[served.workload == workload])
        ours.set_title(f"{workload}, this machine", loc="left")
        _published_curves(theirs, view, published[published.workload == workload], workload)
        theirs.set_title(f"{workload}, as published", loc="left")
    note(figure, "Bars, ours: 95 % intervals.", view.shared())
    return figure, _data(view, published)


def _our_curves(axes: Axes, view: View, served: pd.DataFrame) -> None:
    span, ends = view.cores[-1] - view.cores[0], []
    for arm, offset in side_by_side(view.variants, 0.012 * span):  # else equal variants hide each other's intervals
        points = served[served.variant == arm].sort_values("cores")
        if points.empty:  # the server lacks this variant, or none of its trials is done
            continue
        values, low, high = (points[column] / 1000 for column in ("estimate", "ci_low", "ci_high"))
        curve(axes, look(view, arm), points.cores + offset, values, low, high, label=view.label(arm))
        ends.append((view.label(arm), values.iloc[-1], look(view, arm)["color"]))
    if served.empty:
        say(axes, "No trial is done yet.")
        return
    core_axis(axes, view.cores)
    axes.set_ylabel(" or ".join(_LABELS[metric] for metric in sorted(set(served.metric))))
    axes.set_ylim(bottom=0)
    name_curves(axes, ends)


def _published_curves(axes: Axes, view: View, published: pd.DataFrame, workload: str) -> None:
    if published.empty:
        say(axes, f"No curve of {workload} was published.")
        return
    ends = []
    for name, points in published.groupby("system", sort=False):
        system = str(name)
        arm = next(arm for arm in _SYSTEMS if arm in system.lower())
        low, high = points.kcps - points.error_kcps, points.kcps + points.error_kcps
        curve(axes, published_look(view, arm), points.cores, points.kcps, low, high, label=system)
        ends.append((system, points.sort_values("cores").kcps.iloc[-1], published_look(view, arm)["color"]))
    core_axis(axes, published.cores.unique())
    axes.set_ylabel(_LABELS["cps"])
    axes.set_ylim(bottom=0)
    name_curves(axes, ends)
    axes.annotate(_sources(published), (0.03, 0.95), xycoords="axes fraction", va="top", fontsize="small", color=QUIET)


def _sources(published: pd.DataFrame) -> str:
    """Where the points come from, the most common source first. A number that was printed has the error 0."""
    counts: Any = published.groupby(["source", "error_kcps"]).size().sort_values(ascending=False)
    return "\n".join(
        f"{source} ±{error} kcps" if error else f"{count} points from the {source}"
        for (source, error), count in counts.items()
    )


def _data(view: View, published: pd.DataFrame) -> pd.DataFrame:
    """Per second: workload, system, cores, estimate, low, high, source."""
    served = throughput(view.summary)
    ours = (
        served[served.variant.isin(view.variants)]
        .rename(columns={"variant": "system", "ci_low": "low", "ci_high": "high"})
        .assign(source="measured here")
    )
    theirs = published[published.workload.isin(view.workloads)]
    theirs = theirs.assign(
        estimate=1000 * theirs.kcps,
        low=1000 * (theirs.kcps - theirs.error_kcps),
        high=1000 * (theirs.kcps + theirs.error_kcps),
    )
    columns = ["workload", "system", "cores", "estimate", "low", "high", "source"]
    return pd.concat([ours[columns], theirs[columns]])
