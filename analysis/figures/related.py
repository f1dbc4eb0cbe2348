"""The slides' table of related systems, with today's systems added. The locality of those that run here is measured."""

from pathlib import Path
from textwrap import fill

import pandas as pd
from matplotlib.figure import Figure

from analysis.figures.style import note
from analysis.figures.table import table
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


def draw(view: View) -> tuple[Figure, pd.DataFrame]:
    """One table, with the systems of the slides first. The CSV beside it has the source of each row."""
    systems = pd.read_csv(SYSTEMS, keep_default_na=False)
    shown = systems.assign(**{MEASURED: [_locality(view, variant) for variant in systems.variant]})
    heads = [fill(column.replace("_", " "), width) for column, width in _WIDTHS.items()]
    cells = [[fill(f"{row[column]}", width) for column, width in _WIDTHS.items()] for _, row in shown.iterrows()]
    figure = table([heads, *cells], [*_WIDTHS.values()], [True, *(shown.source != "slides")])
    note(figure, f"The source of each row is in {view.spec.id}.csv.", _setting(view))
    return figure, shown


def _locality(view: View, variant: str) -> str:
    """The local reads that this run measured for a variant, as a text; empty if the run lacks the variant."""
    summary = view.summary
    rows = summary[(summary.variant == variant) & (summary.cores == view.cores[-1])].set_index("metric").estimate
    said = [
        f"{kind} {rows[metric]:.1f} %" for kind in ("passive", "active") if (metric := f"{kind}_local_percent") in rows
    ]
    return ", ".join(said)


def _setting(view: View) -> str:
    return f"Measured with {' and '.join(view.workloads)} on {view.cores[-1]} cores."
