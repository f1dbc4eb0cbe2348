"""Connections per second by cores: the published points and, dashed and hatched, the model."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures.style import Look, note, numbered_look, plain_ticks
from analysis.model.answers import Fitted, interval
from analysis.words import called

_MANY = (24, 28, 32, 40, 48, 64, 96, 128)


def draw_model(fits: list[Fitted]) -> tuple[Figure, pd.DataFrame]:
    """Axes for each curve: above, the held-out points beside their prediction; below, what more cores would give.

    The data has a row per curve, part and core count.
    """
    panels = [[fit for fit in fits if _panel(fit) == name] for name in dict.fromkeys(map(_panel, fits))]
    figure = Figure(figsize=(4.4 * len(panels), 8), layout="constrained")
    grid = figure.subplots(2, len(panels), squeeze=False)
    rows: list[tuple[Any, ...]] = []
    for column, shown in enumerate(panels):
        above, below = grid[0][column], grid[1][column]
        above.set_title(f"{_panel(shown[0])}: judged", loc="left")
        below.set_title(f"{_panel(shown[0])}: more cores", loc="left")
        for fit in shown:
            cores = np.arange(1, fit.curve.cores.max() + 1, dtype=int)
            rows += _model(above, fit, "judged", cores, map(fit.predicted, map(int, cores)))
            rows += _model(below, fit, "more cores", _MANY, map(fit.extrapolated, _MANY))
            _published(above, fit)
            _published(below, fit)
        below.set(xscale="log", yscale="log")
        plain_ticks(below.yaxis)
        below.set_xticks([1, 4, 16, 64, 128], ["1", "4", "16", "64", "128"])
        above.set_ylim(bottom=0)
        above.legend(fontsize="small", loc="upper left")
        for axes in (above, below):
            axes.set(xlabel="server cores", ylabel="thousand connections per second")
    note(
        figure,
        "Filled: published, and fitted above. Hollow: published, and held out above.",
        "Dashed and hatched: the model and its 95 % intervals; below, of all points, beyond which nothing is measured.",
    )
    return figure, pd.DataFrame(rows, columns=["curve", "shown", "cores", "kcps", "low", "high"])


def _panel(fit: Fitted) -> str:
    curve = fit.curve
    return curve.name if "table" in curve.system else called(curve.workload)


def _model(
    axes: Axes, fit: Fitted, shown: str, cores: Iterable[int], predicted: Iterable[Any]
) -> list[tuple[Any, ...]]:
    rows = [(fit.curve.name, shown, count, drawn[0], *interval(drawn)) for count, drawn in zip(cores, predicted)]
    at, kcps, low, high = (np.array(column, float) for column in list(zip(*rows))[2:])
    colour = _look(fit)["color"]
    axes.plot(at, kcps, color=colour, linewidth=1.2, linestyle=(0, (4, 2)))
    axes.fill_between(at, low, high, facecolor="none", edgecolor=colour, hatch="////", alpha=0.35, linewidth=0)
    return rows


def _published(axes: Axes, fit: Fitted) -> None:
    curve, drawn = fit.curve, {**_look(fit), "linestyle": "none"}
    axes.plot(curve.cores[curve.is_known], curve.kcps[curve.is_known], label=curve.system, **drawn)
    hollow = {**drawn, "markerfacecolor": "none", "markeredgewidth": 1.1}
    axes.plot(curve.cores[~curve.is_known], curve.kcps[~curve.is_known], **hollow)


def _look(fit: Fitted) -> Look:
    """Colour and marker of a curve: those of its arm in other figures. NGINX's own table has a look of its own."""
    arms = ("base", "latest", "Fastsocket")
    return numbered_look(next((number for number, arm in enumerate(arms) if arm in fit.curve.system), len(arms)))
