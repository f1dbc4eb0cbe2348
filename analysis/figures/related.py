"""The slides' table of related systems, with today's; the locality of those that run here is measured."""

from pathlib import Path
from textwrap import fill

import pandas as pd
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


def draw(view: View) -> tuple[Figure, pd.DataFrame]:
    """One table, those of the slides first. Sources of all cells are in the CSV beside it."""
    systems = pd.read_csv(SYSTEMS, keep_default_na=False)
    shown = systems.assign(**{MEASURED: [_locality(view, variant) for variant in systems.variant]})
    cells = [[fill(f"{row[column]}", width) for column, width in _WIDTHS.items()] for _, row in shown.iterrows()]
    heads = [fill(column.replace("_", " "), width) for column, width in _WIDTHS.items()]
    lines = [max(cell.count("\n") + 1 for cell in row) for row in [heads, *cells]]
    figure = Figure(
        figsize=(_INCHES_PER_LETTER * sum(_WIDTHS.values()), _INCHES_PER_LINE * (sum(lines) + len(lines) + 4)),
        layout="constrained",
    )
    axes = figure.subplots()
    axes.axis("off")
    total = sum(lines) + 0.6 * len(lines)
    y = 1.0
    for number, (row, high) in enumerate(zip([heads, *cells], lines)):
        x, step = 0.0, (high + 0.6) / total
        if number == 0 or shown.source.iloc[number - 1] != "slides":  # what the slides do not have is grey
            axes.axhspan(y - step, y, color="0.95", zorder=0)
        for text, width in zip(row, _WIDTHS.values()):
            axes.text(
                x,
                y - step / 2,
                text,
                va="center",
                fontsize=8,
                fontweight="bold" if number == 0 else None,
                transform=axes.transAxes,
            )
            x += width / sum(_WIDTHS.values())
        y -= step
        axes.axhline(y, color=QUIET if number == 0 else "0.85", linewidth=0.8)
    axes.set(xlim=(0, 1), ylim=(0, 1))
    note(figure, f"The source of each row is in {view.spec.id}.csv.", _setting(view))
    return figure, shown


def _locality(view: View, variant: str) -> str:
    """Of what this run measured for a row that names one of its variants."""
    rows = view.summary.query("variant == @variant and cores == @view.cores[-1]").set_index("metric").estimate
    said = [
        f"{kind} {rows[metric]:.1f} %" for kind in ("passive", "active") if (metric := f"{kind}_local_percent") in rows
    ]
    return ", ".join(said)


def _setting(view: View) -> str:
    return f"Measured with {' and '.join(view.workloads)} on {view.cores[-1]} cores."
