"""Throughput by cores: this machine's curves, and beside them the published curves on axes of their own."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.estimates import throughput
from analysis.figures.style import (
    QUIET,
    Look,
    core_axis,
    curve,
    look,
    name_curves,
    note,
    published_look,
    say,
    side_by_side,
)
from analysis.figures.view import View
from analysis.statistics import MIN_BLOCKS
from analysis.words import called
from records.trials import BASE

PUBLISHED = Path(__file__).parent.parent / "published" / "throughput_by_cores.csv"

_LABELS = {"cps": "thousand connections per second", "rps": "thousand requests per second"}
_MEASURED = "0.9"  # colour behind the core counts that this run measured, in the published axes
_IDEAL: Look = {"color": QUIET, "linestyle": ":", "linewidth": 1, "zorder": 1, "label": "_ideal"}
_SYSTEMS = (BASE, "latest", "fastsocket")


def draw(view: View) -> tuple[Figure, pd.DataFrame]:
    """For each workload: our curves above our ratios to base and, if any were published, the published ones beside."""
    served, known = throughput(view.summary), pd.read_csv(PUBLISHED)
    published = known[known.workload.isin(view.workloads)]
    columns, rows = 2 if len(published) else 1, len(view.workloads)
    figure = Figure(figsize=(5.25 * columns, 5.6 * rows), layout="constrained")
    grid = figure.subplots(2 * rows, columns, squeeze=False, height_ratios=[3, 2] * rows)
    for number, workload in enumerate(view.workloads):
        ours, theirs = served[served.workload == workload], published[published.workload == workload]
        curves, ratios = grid[2 * number], grid[2 * number + 1]
        curves[0].set_title(f"{called(workload)}, this machine", loc="left")
        _our_curves(curves[0], view, ours)
        _our_ratios(ratios[0], view, ours)
        if columns == 2:
            curves[1].set_title(f"{called(workload)}, as published", loc="left")
            _published_curves(curves[1], view, theirs, workload)
            _published_ratios(ratios[1], view, theirs)
    note(
        figure,
        "Bars, ours: 95 % intervals. Those of ratios come from pairs in the same blocks, without the machine's drift.",
        "Dotted: base, if each core served as much as the first." if len(view.cores) > 1 else "",
        "Grey: the cores that were measured here."
        if columns == 2
        else f"No curve of {' or '.join(map(called, view.workloads))} was published.",
        view.shared(),
    )
    return figure, _data(view, published)


def _our_curves(axes: Axes, view: View, served: pd.DataFrame) -> None:
    span, ends = view.cores[-1] - view.cores[0], []
    for arm, offset in side_by_side(view.variants, 0.012 * span):  # apart: else equal variants hide each other
        points = served[served.variant == arm].sort_values("cores")
        if points.empty:  # the server lacks this variant, or none of its trials is done
            continue
        values, low, high = (points[column] / 1000 for column in ("estimate", "ci_low", "ci_high"))
        curve(axes, look(view, arm), points.cores + offset, values, low, high, label=view.label(arm))
        ends.append((view.label(arm), values.iloc[-1], look(view, arm)["color"]))
    if served.empty:
        say(axes, "No trial is done yet.")
        return
    base = served[served.variant == BASE]
    _ideal(axes, base.cores, base.estimate / 1000)
    core_axis(axes, view.cores)
    axes.set_ylabel(" or ".join(_LABELS[metric] for metric in sorted(set(served.metric))))
    axes.set_ylim(bottom=0)
    name_curves(axes, ends)


def _ideal(axes: Axes, cores: pd.Series, served: pd.Series) -> None:
    """Draw what base would serve if each core served as much as a core does at the smallest core count."""
    if cores.nunique() < 2:
        return
    fewest = served[cores == cores.min()].iloc[0]
    axes.plot([cores.min(), cores.max()], [fewest, fewest * cores.max() / cores.min()], **_IDEAL)


def _our_ratios(axes: Axes, view: View, served: pd.DataFrame) -> None:
    arms = [arm for arm in view.variants if arm != BASE]
    for arm, offset in side_by_side(arms, 0.012 * (view.cores[-1] - view.cores[0])):
        points = served[served.variant == arm].dropna(subset="ratio_low").sort_values("cores")
        bounds = points.ratio_low, points.ratio_high
        curve(axes, look(view, arm), points.cores + offset, points.ratio_to_base, *bounds, label=view.label(arm))
    _ratio_axes(axes, view.cores)
    if served.ratio_low.isna().all():
        say(axes, f"No ratio has an interval: it takes {MIN_BLOCKS} complete blocks.")


def _published_ratios(axes: Axes, view: View, published: pd.DataFrame) -> None:
    by_arm = {_arm(str(name)): points.set_index("cores") for name, points in published.groupby("system")}
    for arm in (arm for arm in by_arm if arm != BASE):
        points, base = by_arm[arm], by_arm[BASE]
        low, high = (
            (points.kcps + sign * points.error_kcps) / (base.kcps - sign * base.error_kcps) for sign in (-1, 1)
        )
        curve(axes, published_look(view, arm), points.index, points.kcps / base.kcps, low, high, label=arm)
    axes.axvspan(view.cores[0], view.cores[-1], color=_MEASURED)
    _ratio_axes(axes, published.cores.unique())


def _ratio_axes(axes: Axes, cores: Iterable[int]) -> None:
    axes.axhline(1, color=QUIET, linewidth=1)
    core_axis(axes, cores)
    axes.set_ylabel("ratio to base")


def _arm(system: str) -> str:
    return next(arm for arm in _SYSTEMS if arm in system.lower())


def _published_curves(axes: Axes, view: View, published: pd.DataFrame, workload: str) -> None:
    if published.empty:
        say(axes, f"No curve of {called(workload)} was published.")
        return
    ends = []
    for name, points in published.groupby("system", sort=False):
        system, arm = str(name), _arm(str(name))
        low, high = points.kcps - points.error_kcps, points.kcps + points.error_kcps
        curve(axes, published_look(view, arm), points.cores, points.kcps, low, high, label=system)
        ends.append((system, points.sort_values("cores").kcps.iloc[-1], published_look(view, arm)["color"]))
    base = published[published.system.map(_arm) == BASE]
    _ideal(axes, base.cores, base.kcps)
    axes.axvspan(view.cores[0], view.cores[-1], color=_MEASURED)
    core_axis(axes, published.cores.unique())
    axes.set_ylabel(_LABELS["cps"])
    axes.set_ylim(bottom=0)
    name_curves(axes, ends)
    axes.annotate(_sources(published), (0.03, 0.95), xycoords="axes fraction", va="top", fontsize="small", color=QUIET)


def _sources(published: pd.DataFrame) -> str:
    """A text on where the published points come from, the most common source first. A point whose number was printed in
    the source has the error 0."""
    counts: Any = published.groupby(["source", "error_kcps"]).size().sort_values(ascending=False)
    return "\n".join(
        f"{source} ±{error} kcps" if error else f"{count} points from the {source}"
        for (source, error), count in counts.items()
    )


def _data(view: View, published: pd.DataFrame) -> pd.DataFrame:
    """The data of the figure: columns workload, system, cores, estimate, low and high (per second), source and, for our
    own points, the ratios to base."""
    served = throughput(view.summary)
    ours = (
        served[served.variant.isin(view.variants)]
        .rename(columns={"variant": "system", "ci_low": "low", "ci_high": "high"})
        .assign(source="measured here")
    )
    theirs = published.assign(
        estimate=1000 * published.kcps,
        low=1000 * (published.kcps - published.error_kcps),
        high=1000 * (published.kcps + published.error_kcps),
    )
    columns = ["workload", "system", "cores", "estimate", "low", "high", "source"]
    ratios = ["ratio_to_base", "ratio_low", "ratio_high"]
    return pd.concat([ours[columns + ratios], theirs[columns]])
