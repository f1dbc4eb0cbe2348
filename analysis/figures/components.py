"""Each component of the slides on today's kernel: the table of docs/components.md, and what this run measured."""

import re
from pathlib import Path
from textwrap import fill

import pandas as pd
from matplotlib.figure import Figure

from analysis.estimates import contrasts, each, place
from analysis.figures.style import note
from analysis.figures.table import table
from analysis.figures.view import View
from analysis.statistics import MIN_BLOCKS
from records.run import Effect

PAGE = Path(__file__).resolve().parents[2] / "docs" / "components.md"
COMPONENT, MEASURED_AS, MEASURED = "Component", "Measured as", "measured here: throughput, ratio"
_WIDTHS = (19, 34, 22, 18, 20, 24, 20)  # of the page's columns and of ours, in letters
_RATIO = r"^(\S+) over (\S+)$"


def draw(view: View) -> tuple[Figure, pd.DataFrame]:
    """A ratio without an interval is not shown."""
    shown = components()
    found = contrasts(view.trials, effects()).query("cores == @view.cores[-1]").dropna(subset="low")
    said = {row.effect: f"{row.ratio:.3f} ({row.low:.3f}–{row.high:.3f})" for row in each(found)}
    shown[MEASURED] = [said.get(name, "") for name in shown[COMPONENT]]
    rows = [[*shown.columns], *shown.to_numpy().tolist()]
    filled = [[fill(cell, width - 1, break_on_hyphens=False) for cell, width in zip(row, _WIDTHS)] for row in rows]
    figure = table(filled, [*_WIDTHS], [True, *[False] * len(shown)])
    where = f"Measured with {' and '.join(place(workload, view.cores[-1]) for workload in view.workloads)}."
    few = "" if said else f"No ratio has an interval: it takes {MIN_BLOCKS} complete blocks."
    note(figure, "The text is that of docs/components.md.", where, "95 % intervals." if said else few, view.shared())
    return figure, shown


def components() -> pd.DataFrame:
    """The first table of the page, as a reader sees it."""
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("|")]
    heading, _, *rows = [[_plain(cell) for cell in line.strip("|").split("|")] for line in lines]
    return pd.DataFrame(rows, columns=heading)


def effects() -> dict[str, Effect]:
    """Of each component that can be switched: the variants that differ by it."""
    found = components().set_index(COMPONENT)[MEASURED_AS].str.extract(_RATIO).dropna()
    return {name: Effect(of=[of], over=[over]) for name, of, over in found.itertuples()}


def _plain(cell: str) -> str:
    """Without the marks of Markdown."""
    return re.sub(r"\[([^]]+)\]\([^)]+\)", r"\1", cell).replace("`", "").strip()
