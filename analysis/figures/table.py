"""A table drawn as a figure. Each row is as high as its tallest cell."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures.style import QUIET

_INCHES_PER_LETTER, _INCHES_PER_LINE = 0.088, 0.19
_GAP = 0.6  # between rows, in lines


def table(rows: list[list[str]], widths: list[int], is_grey: list[bool]) -> Figure:
    """Draw a table. The first row is the heading.

    rows: the cells, whose lines are broken already. widths: the width of each column in letters. is_grey: for each row,
    whether it has a grey background.
    """
    lines = [max(cell.count("\n") + 1 for cell in row) for row in rows]
    total = sum(lines) + _GAP * len(lines)
    inches = _INCHES_PER_LETTER * sum(widths), _INCHES_PER_LINE * (sum(lines) + len(lines) + 4)
    figure = Figure(figsize=inches, layout="constrained")
    axes = figure.subplots()
    axes.axis("off")
    top = 1.0
    for row, high, grey in zip(rows, lines, is_grey):
        bottom = top - (high + _GAP) / total
        if grey:
            axes.axhspan(bottom, top, color="0.95", zorder=0)
        _row(axes, row, widths, (top + bottom) / 2, is_heading=row is rows[0])
        top = bottom
        axes.axhline(top, color=QUIET if row is rows[0] else "0.85", linewidth=0.8)
    axes.set(xlim=(0, 1), ylim=(0, 1))
    return figure


def _row(axes: Axes, cells: list[str], widths: list[int], middle: float, is_heading: bool) -> None:
    left = 0.0
    for text, width in zip(cells, widths):
        weight = "bold" if is_heading else None
        axes.text(left, middle, text, va="center", fontsize=8, fontweight=weight, transform=axes.transAxes)
        left += width / sum(widths)
