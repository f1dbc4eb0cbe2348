"""One style for all figures. Colour-blind people can tell its colours apart, and so can readers of a grey print."""

from collections.abc import Iterable, Iterator
from textwrap import fill
from typing import Any

import numpy as np
import seaborn
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from analysis.figures.view import View
from records.trials import BASE, CONTROL

STYLE = {
    **seaborn.axes_style("whitegrid"),
    **seaborn.plotting_context("paper", font_scale=1.15),
    "axes.edgecolor": "0.6",
    "axes.titleweight": "bold",
    "grid.color": "0.9",
    "legend.frameon": False,
    "svg.hashsalt": "fastsocket-lab",
}
Look = dict[str, Any]  # of matplotlib's plot()
BAR: Look = {"capsize": 4, "elinewidth": 1.4, "capthick": 1.4}
QUIET = "0.35"

_PALETTE = seaborn.color_palette("colorblind")
_COLOURS = [_PALETTE[index] for index in (0, 1, 2, 7, 4, 8, 9, 5, 3, 6)]  # control, the fourth, is grey
FASTSOCKET = _COLOURS[2]
_MARKERS = "osD^vP*X"
_FIRST = [BASE, "latest", "fastsocket", CONTROL]  # these look the same in every run


def look(view: View, arm: str) -> Look:
    """Colour and marker of an arm, the same in all figures of a run."""
    known = [*_FIRST, *(variant for variant in view.run.options.variants if variant not in _FIRST)]
    return numbered_look(known.index(arm))


def numbered_look(number: int) -> Look:
    """As look(), of the arm that is the first, second, … of all."""
    return {
        "color": _COLOURS[number % len(_COLOURS)],
        "marker": _MARKERS[number % len(_MARKERS)],
        "markersize": 4.5,
        "markeredgewidth": 0,
        "linewidth": 1.2,
    }


def published_look(view: View, arm: str) -> Look:
    """As look(), but hollow and dashed, so that it is not taken for ours."""
    return {**look(view, arm), "markerfacecolor": "none", "markeredgewidth": 1.1, "linestyle": (0, (4, 2))}


def curve(axes: Axes, drawn: Look, x: Any, values: Any, low: Any, high: Any, label: str) -> None:
    """Values with intervals. A bar has its own middle, because an interval need not lie evenly around the value."""
    axes.errorbar(x, (low + high) / 2, yerr=(high - low) / 2, fmt="none", ecolor=drawn["color"], **BAR)
    axes.plot(x, values, label=label, **drawn)


def bar(axes: Axes, y: float, low: float, high: float, colour: Any) -> None:
    """A horizontal interval."""
    axes.errorbar((low + high) / 2, y, xerr=(high - low) / 2, fmt="none", ecolor=colour, **BAR)


def side_by_side(arms: list[str], reach: float) -> Iterator[tuple[str, float]]:
    """Each arm with where it is drawn: from -reach to reach beside its place on the axis."""
    return zip(arms, np.linspace(-reach, reach, len(arms)) if len(arms) > 1 else [0])


def name_curves(axes: Axes, ends: list[tuple[str, float, Any]]) -> None:
    """Labels at the right of the axes instead of a legend: (label, last value, colour) of each curve, kept apart."""
    low, high = axes.get_ylim()
    gap, at = 0.065 * (high - low), -np.inf
    for label, value, colour in sorted(ends, key=lambda end: end[1]):
        at = max(value, at + gap)
        axes.annotate(
            label,
            (1.01, at),
            xycoords=("axes fraction", "data"),
            va="center",
            color=colour,
            fontsize="small",
            annotation_clip=False,
        )


def core_axis(axes: Axes, cores: Iterable[int]) -> None:
    axes.set_xticks(sorted(cores), [f"{count}" for count in sorted(cores)])
    axes.set_xlabel("server cores")
    axes.margins(x=0.08)


def plain_ticks(axis: Axis) -> None:
    """Numbers as people write them on a logarithmic axis: 0.5, 1, 2, 5, 10."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axis.set_minor_formatter(NullFormatter())


def note(figure: Figure, *sentences: str) -> None:
    """The sentences that are not empty, beneath the figure."""
    if said := "  ".join(filter(None, sentences)):
        figure.supxlabel(fill(said, int(11 * figure.get_figwidth())), fontsize="small", color=QUIET)


def say(axes: Axes, text: str) -> None:
    """A text in place of a plot that has no data."""
    axes.text(0.5, 0.5, fill(text, 48), transform=axes.transAxes, ha="center", va="center", color=QUIET)
    axes.set(xticks=[], yticks=[])
    axes.grid(visible=False)
