"""The slides' table of related systems, with today's; the locality of those that run here is measured."""

from pathlib import Path
from textwrap import fill

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures.style import QUIET, note
from analysis.figures.view import View

SYSTEMS = Path(__file__).parent.parent / "published" / "related_systems.csv"
MEASURED = "measured here: local reads"
_WIDTHS = {
    "system": 19,
    "accept_queue": 11,
    "connection_locality": 13,
    "socket_api": 13,
    "event_handling": 14,
    "packet_io": 10,
    "application_modification": 18,
    "kernel_modification": 13,
    MEASURED: 16,
}
_INCHES_PER_LETTER, _INCHES_PER_LINE = 0.088, 0.19
_GAP = 0.6  # between rows, in lines


def draw(view: View) -> tuple[Figure, pd.DataFrame]:
    """One table, those of the slides first. Sources of all cells are in the CSV beside it."""
    systems = pd.read_csv(SYSTEMS, keep_default_na=False)
    shown = systems.assign(**{MEASURED: [_locality(view, variant) for variant in systems.variant]})
    heads = [fill(column.replace("_", " "), width) for column, width in _WIDTHS.items()]
    cells = [[fill(f"{row[column]}", width) for column, width in _WIDTHS.items()] for _, row in shown.iterrows()]
    figure = _table([heads, *cells], [True, *(shown.source != "slides")])
    note(figure, f"The source of each row is in {view.spec.id}.csv.", _setting(view))
    return figure, shown


def _table(rows: list[list[str]], is_grey: list[bool]) -> Figure:
    """The heading and the rows below it, each as high as its tallest cell."""
    lines = [max(cell.count("\n") + 1 for cell in row) for row in rows]
    total = sum(lines) + _GAP * len(lines)
    inches = _INCHES_PER_LETTER * sum(_WIDTHS.values()), _INCHES_PER_LINE * (sum(lines) + len(lines) + 4)
    figure = Figure(figsize=inches, layout="constrained")
    axes = figure.subplots()
    axes.axis("off")
    top = 1.0
    for row, high, grey in zip(rows, lines, is_grey):
        bottom = top - (high + _GAP) / total
        if grey:
            axes.axhspan(bottom, top, color="0.95", zorder=0)
        _row(axes, row, (top + bottom) / 2, is_heading=row is rows[0])
        top = bottom
        axes.axhline(top, color=QUIET if row is rows[0] else "0.85", linewidth=0.8)
    axes.set(xlim=(0, 1), ylim=(0, 1))
    return figure


def _row(axes: Axes, cells: list[str], middle: float, is_heading: bool) -> None:
    left, letters = 0.0, sum(_WIDTHS.values())
    for text, width in zip(cells, _WIDTHS.values()):
        weight = "bold" if is_heading else None
        axes.text(left, middle, text, va="center", fontsize=8, fontweight=weight, transform=axes.transAxes)
        left += width / letters


def _locality(view: View, variant: str) -> str:
    """Of what this run measured for a row that names one of its variants."""
    summary = view.summary
    rows = summary[(summary.variant == variant) & (summary.cores == view.cores[-1])].set_index("metric").estimate
    said = [
        f"{kind} {rows[metric]:.1f} %" for kind in ("passive", "active") if (metric := f"{kind}_local_percent") in rows
    ]
    return ", ".join(said)


def _setting(view: View) -> str:
    return f"Measured with {' and '.join(view.workloads)} on {view.cores[-1]} cores."
