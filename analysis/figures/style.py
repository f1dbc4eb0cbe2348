"""One style for all figures. Colour-blind readers, and readers of a grey print, can tell its colours apart."""

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
Look = dict[str, Any]  # keyword arguments of matplotlib's plot()
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
    """Colour and marker of an arm by its number, from 0 on, in the order of look()."""
    return {
        "color": _COLOURS[number % len(_COLOURS)],
        "marker": _MARKERS[number % len(_MARKERS)],
        "markersize": 4.5,
        "markeredgewidth": 0,
        "linewidth": 1.2,
    }


def published_look(view: View, arm: str) -> Look:
    """The look of an arm's published numbers: look(), but hollow and dashed, so that they are not taken for ours."""
    return {**look(view, arm), "markerfacecolor": "none", "markeredgewidth": 1.1, "linestyle": (0, (4, 2))}


def curve(axes: Axes, drawn: Look, x: Any, values: Any, low: Any, high: Any, label: str) -> None:
    """Draw values with their intervals. Each bar has a middle of its own, because an interval need not be symmetric
    around its value."""
    axes.errorbar(x, (low + high) / 2, yerr=(high - low) / 2, fmt="none", ecolor=drawn["color"], **BAR)
    axes.plot(x, values, label=label, **drawn)


def bar(axes: Axes, y: float, low: float, high: float, colour: Any) -> None:
    """Draw a horizontal interval."""
    axes.errorbar((low + high) / 2, y, xerr=(high - low) / 2, fmt="none", ecolor=colour, **BAR)


def side_by_side(arms: list[str], reach: float) -> Iterator[tuple[str, float]]:
    """Each arm with its offset on the axis, from -reach to reach, so that the arms stand beside each other."""
    return zip(arms, np.linspace(-reach, reach, len(arms)) if len(arms) > 1 else [0])


def name_curves(axes: Axes, ends: list[tuple[str, float, Any]]) -> None:
    """Label the curves at the right of the axes, instead of a legend. The labels are kept apart.

    ends: label, last value and colour of each curve.
    """
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
    """Mark a logarithmic axis with plain numbers: 0.5, 1, 2, 5, 10."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axis.set_minor_formatter(NullFormatter())


def note(figure: Figure, *sentences: str) -> None:
    """Write the sentences beneath the figure; empty ones are skipped."""
    if said := "  ".join(filter(None, sentences)):
        figure.supxlabel(fill(said, int(11 * figure.get_figwidth())), fontsize="small", color=QUIET)


def say(axes: Axes, text: str) -> None:
    """Write a text in place of a plot that has no data."""
    axes.text(0.5, 0.5, fill(text, 48), transform=axes.transAxes, ha="center", va="center", color=QUIET)
    axes.set(xticks=[], yticks=[])
    axes.grid(visible=False)
