"""The figures of a run, drawn without a display and the same, byte for byte, from the same data."""

from pathlib import Path
from textwrap import fill

import matplotlib
import numpy as np
import pandas as pd
import seaborn
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from analysis.estimates import BASE, CONTROL, MIN_BLOCKS, counted, outcome, throughput
from analysis.tables import NOT_AVAILABLE, arms, ratio, without_prefix
from bench.record import Run

matplotlib.use("Agg")

PUBLISHED = Path(__file__).parent / "published" / "throughput_by_cores.csv"
STYLE = {**seaborn.axes_style("whitegrid"), **seaborn.plotting_context("paper", font_scale=1.15),
         "axes.edgecolor": "0.6", "axes.titleweight": "bold", "grid.color": "0.9", "legend.frameon": False,
         "svg.hashsalt": "fastsocket-lab"}

_PALETTE = seaborn.color_palette("colorblind")
_COLOURS = [_PALETTE[index] for index in (0, 1, 2, 7, 4, 8, 9, 5, 3, 6)]  # control, the fourth, is grey
_MARKERS = "osD^vP*X"
_FIRST = [BASE, "latest", "fastsocket", CONTROL]  # these look the same in every run, whatever else is in it
_BAR = {"capsize": 4, "elinewidth": 1.4, "capthick": 1.4}
_LABELS = {"cps": "thousand connections per second", "rps": "thousand requests per second"}
_LOCALITY = {"passive_local_percent": "passive connections", "active_local_percent": "active connections"}


class FigureError(Exception):
    """An unknown figure was asked for; the message lists those there are."""

    exit_status = 2


def draw_figures(directory: Path, run: Run, summary: pd.DataFrame, only: str | None = None) -> list[Path]:
    """Draw all figures, or the one with the id only, into directory/figures; an .svg and a .png of each.

    Raises FigureError when there is no figure of that id.
    """
    chosen = figure_ids(run) if only is None else [only]
    if unknown := set(chosen) - set(figure_ids(run)):
        raise FigureError(f"no figure {', '.join(unknown)}; there are: {', '.join(figure_ids(run))}")
    (directory / "figures").mkdir(parents=True, exist_ok=True)
    return [path for name in chosen for path in _save(directory / "figures" / name, _draw(name, run, summary))]


def figure_ids(run: Run) -> list[str]:
    """All figures of a run, <kind>-<workload>."""
    return [f"{kind}-{workload}" for workload in run.options.workloads for kind in _KINDS]


def _draw(name: str, run: Run, summary: pd.DataFrame) -> Figure:
    kind, workload = name.split("-", 1)
    with matplotlib.rc_context(STYLE):
        return _KINDS[kind](run, summary[summary.workload == workload], workload)


def _save(path: Path, figure: Figure) -> list[Path]:
    paths = [path.with_name(f"{path.name}.{suffix}") for suffix in ("svg", "png")]
    with matplotlib.rc_context(STYLE):
        figure.savefig(paths[0], metadata={"Date": None, "Creator": None})
        figure.savefig(paths[1], dpi=160, metadata={"Software": None})
    return paths


def _throughput_by_cores(run: Run, rows: pd.DataFrame, workload: str) -> Figure:
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    ours, theirs = figure.subplots(1, 2)
    _our_curves(ours, run, throughput(rows))
    ours.set_title(f"{workload}, this machine", loc="left")
    _published_curves(theirs, run, workload)
    theirs.set_title(f"{workload}, as published", loc="left")
    if shared := _shared(run):
        figure.supxlabel(shared, fontsize="small", color="0.35")
    return figure


def _our_curves(axes: Axes, run: Run, served: pd.DataFrame) -> None:
    span = max(run.options.cores) - min(run.options.cores)
    for arm, offset in _side_by_side(run, 0.012 * span):  # else equal variants hide each other's intervals
        curve = served[served.variant == arm].sort_values("cores")
        if curve.empty:  # the server lacks this variant, or none of its trials is done
            continue
        values, low, high = (curve[column] / 1000 for column in ("estimate", "ci_low", "ci_high"))
        _curve(axes, _look(run, arm), curve.cores + offset, values, low, high, label=arm)
    _core_axis(axes, run.options.cores)
    axes.set_ylabel(" or ".join(_LABELS[metric] for metric in sorted(set(served.metric))))
    axes.set_ylim(bottom=0)
    axes.legend(title="95 % intervals", alignment="left")


def _published_curves(axes: Axes, run: Run, workload: str) -> None:
    published = pd.read_csv(PUBLISHED).query("workload == @workload")
    if published.empty:
        _say(axes, f"No curve of {workload} was published.")
        return
    for system, curve in published.groupby("system", sort=False):
        arm = next(arm for arm in _FIRST if arm in system.lower())
        low, high = curve.kcps - curve.error_kcps, curve.kcps + curve.error_kcps
        _curve(axes, _look(run, arm), curve.cores, curve.kcps, low, high, label=system)
    _core_axis(axes, published.cores.unique())
    axes.set_ylabel(_LABELS["cps"])
    axes.set_ylim(bottom=0)
    axes.legend(title=_sources(published), alignment="left")


def _sources(published: pd.DataFrame) -> str:
    """Where the points come from, the most common source first; an error of 0 is of a figure that was printed."""
    counts = published.groupby(["source", "error_kcps"]).size().sort_values(ascending=False)
    return "\n".join(f"{source} ±{error} kcps" if error else f"{count} points from the {source}"
                     for (source, error), count in counts.items())


def _ratio_to_base(run: Run, rows: pd.DataFrame, workload: str) -> Figure:
    asked = "CPU time per request" if workload in run.options.rates else "throughput"
    answered = outcome(run, rows).dropna(subset=["ratio_low"])
    order = [(cores, arm) for cores in sorted(run.options.cores) for arm in arms(run)]
    drawn = [row for place_ in order for row in answered.itertuples() if (row.cores, row.variant) == place_]
    figure = Figure(figsize=(7.5, 1.4 + 0.38 * max(len(drawn), 3)), layout="constrained")
    axes = figure.subplots()
    axes.set_title(f"{workload}: {asked} as a ratio to base", loc="left")
    if drawn:
        _forest(axes, run, drawn)
    else:
        _say(axes, f"No ratio has an interval: it takes {MIN_BLOCKS} complete blocks.")
    return figure


def _forest(axes: Axes, run: Run, drawn: list) -> None:
    axes.axvline(1, color="0.35", linewidth=1, zorder=1)
    for y, row in enumerate(drawn):
        look = _look(run, row.variant)
        axes.errorbar((row.ratio_low + row.ratio_high) / 2, y, xerr=(row.ratio_high - row.ratio_low) / 2, fmt="none",
                      ecolor=look["color"], **_BAR)
        axes.plot(row.ratio_to_base, y, **look)
        axes.annotate(ratio(row), (1.02, y), xycoords=("axes fraction", "data"), va="center", fontsize="small")
    axes.set_yticks(range(len(drawn)), [f"{counted(row.cores)}  {row.variant}" for row in drawn])
    axes.set_ylim(len(drawn) - 0.5, -0.5)
    for y in range(1, len(drawn)):
        if drawn[y].cores != drawn[y - 1].cores:
            axes.axhline(y - 0.5, color="0.8", linewidth=0.8)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("ratio to base, 95 % intervals; control is base against itself")


def _locality(run: Run, rows: pd.DataFrame, workload: str) -> Figure:
    shown = [metric for metric in _LOCALITY if metric in set(rows.metric)] or list(_LOCALITY)[:1]
    figure = Figure(figsize=(1.5 + 4 * len(shown), 3.8), layout="constrained")
    for axes, metric in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown):
        axes.set_title(f"{workload}: {_LOCALITY[metric]}", loc="left")
        _local_share(axes, run, rows[rows.metric == metric], metric)
    if handles := axes.get_legend_handles_labels()[0]:
        figure.legend(handles=handles, title="95 % intervals", alignment="left", loc="outside right upper")
    return figure


def _local_share(axes: Axes, run: Run, rows: pd.DataFrame, metric: str) -> None:
    if rows.empty or metric in run.unavailable:
        reason = run.unavailable.get(metric, "no trial measured it")
        _say(axes, f"{NOT_AVAILABLE}: {without_prefix(reason)}")
        return
    positions = {cores: position for position, cores in enumerate(sorted(run.options.cores))}
    for arm, offset in _side_by_side(run, 0.2):
        of_arm = rows[rows.variant == arm]
        if of_arm.empty:
            continue
        _curve(axes, {**_look(run, arm), "linestyle": "none"}, of_arm.cores.map(positions) + offset,
               of_arm.estimate, of_arm.ci_low, of_arm.ci_high, label=arm)
    axes.set_xticks(list(positions.values()), positions)
    axes.set_xlim(-0.5, len(positions) - 0.5)
    axes.set_xlabel("server cores")
    axes.set_ylim(-3, 103)
    axes.yaxis.set_major_formatter(PercentFormatter(decimals=0, symbol=" %"))
    axes.set_ylabel("handled on their own core")


def _side_by_side(run: Run, reach: float):
    """Each variant with where it is drawn: from -reach to reach beside its core count."""
    variants = run.options.variants
    return zip(variants, np.linspace(-reach, reach, len(variants)) if len(variants) > 1 else [0])


def _curve(axes: Axes, look: dict, cores, values, low, high, label: str) -> None:
    """Values by cores. A bar is drawn around its own middle, as a bootstrap interval needn't lie around the value."""
    axes.errorbar(cores, (low + high) / 2, yerr=(high - low) / 2, fmt="none", ecolor=look["color"], **_BAR)
    axes.plot(cores, values, label=label, **look)


def _look(run: Run, arm: str) -> dict:
    """Colour and marker of an arm, the same in all figures of a run."""
    known = [*_FIRST, *(variant for variant in run.options.variants if variant not in _FIRST)]
    number = known.index(arm)
    return {"color": _COLOURS[number % len(_COLOURS)], "marker": _MARKERS[number % len(_MARKERS)], "markersize": 4.5,
            "markeredgewidth": 0, "linewidth": 1.2}


def _core_axis(axes: Axes, cores) -> None:
    axes.set_xticks(sorted(cores), [f"{count}" for count in sorted(cores)])
    axes.set_xlabel("server cores")
    axes.margins(x=0.08)


def _shared(run: Run) -> str:
    """A note on where the load generator takes CPU time from the server, empty if nowhere."""
    cores = [f"{placement.cores}" for placement in run.placements if placement.shared]
    return f"This machine at {', '.join(cores)} cores: the load generator shares CPUs with the server." if cores else ""


def _say(axes: Axes, text: str) -> None:
    """In place of a plot that there is nothing for."""
    axes.text(0.5, 0.5, fill(text, 48), transform=axes.transAxes, ha="center", va="center", color="0.35")
    axes.set(xticks=[], yticks=[])
    axes.grid(visible=False)


_KINDS = {"throughput_by_cores": _throughput_by_cores, "ratio_to_base": _ratio_to_base, "locality": _locality}
