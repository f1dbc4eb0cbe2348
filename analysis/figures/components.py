"""Tables of docs/ beside what this run measured: the slides' components on today's kernel, and the slides' future
work."""

import re
from pathlib import Path
from textwrap import fill
from typing import NamedTuple

import pandas as pd
from matplotlib.figure import Figure

from analysis.estimates import contrasts, each
from analysis.figures.style import note
from analysis.figures.table import table
from analysis.figures.view import View
from analysis.statistics import MIN_BLOCKS
from analysis.words import called, place
from records.run import Effect

DOCS = Path(__file__).resolve().parents[2] / "docs"
MEASURED_AS, MEASURED = "Measured as", "measured here: throughput, ratio"
_RATIO = r"^(\S+) over (\S+)$"


class Page(NamedTuple):
    """A page of docs/ with a table. The first column of the table names the rows."""

    name: str
    widths: tuple[int, ...]  # of the table's columns and of the column with our ratios, in letters


COMPONENTS = Page("components.md", (19, 34, 22, 18, 20, 24, 20))
FUTURE = Page("future.md", (22, 36, 22, 26, 40, 32))


def draw(view: View) -> tuple[Figure, pd.DataFrame]:
    """The table of the slides' components on today's kernel, with this run's ratios."""
    return _draw(view, COMPONENTS)


def draw_future(view: View) -> tuple[Figure, pd.DataFrame]:
    """The table of what the slides left for the future, with this run's ratios."""
    return _draw(view, FUTURE)


def _draw(view: View, page: Page) -> tuple[Figure, pd.DataFrame]:
    """Draw the table of a page, with a column of the ratios that this run measured at its largest core count. A ratio
    without an interval is not shown."""
    shown = rows_of(page)
    found = contrasts(view.trials, effects(page)).query("cores == @view.cores[-1]").dropna(subset="low")
    shown[MEASURED] = [_said(view, found[found.effect == name]) for name in shown.iloc[:, 0]]
    rows = [[*shown.columns], *shown.to_numpy().tolist()]
    filled = [["\n".join(_lines(cell, width)) for cell, width in zip(row, page.widths)] for row in rows]
    figure = table(filled, [*page.widths], [True, *[False] * len(shown)])
    where = f"Measured with {' and '.join(place(workload, view.cores[-1]) for workload in view.workloads)}."
    few = f"No ratio has an interval: it takes {MIN_BLOCKS} complete blocks." if found.empty else "95 % intervals."
    note(figure, f"The text is that of docs/{page.name}.", where, few, view.shared())
    return figure, shown


def _said(view: View, found: pd.DataFrame) -> str:
    """The ratio and its interval as a text, with a line for each server if the figure shows several."""
    several = len(view.workloads) > 1
    return "\n".join(
        f"{called(row.workload) + ': ' if several else ''}{row.ratio:.3f} ({row.low:.3f}–{row.high:.3f})"
        for row in each(found)
    )


def _lines(cell: str, width: int) -> list[str]:
    return [fill(line, width - 1, break_on_hyphens=False) for line in cell.splitlines()]


def rows_of(page: Page) -> pd.DataFrame:
    """The table of the page, without the marks of Markdown."""
    lines = [line for line in (DOCS / page.name).read_text().splitlines() if line.startswith("|")]
    heading, _, *rows = [[_plain(cell) for cell in line.strip("|").split("|")] for line in lines]
    return pd.DataFrame(rows, columns=heading)


def effects(page: Page) -> dict[str, Effect]:
    """Name of a row -> the effect whose ratio is shown there: two variants that differ by what the row is about. Rows
    without such variants are left out."""
    rows = rows_of(page)
    found = rows.set_index(rows.columns[0])[MEASURED_AS].str.extract(_RATIO).dropna()
    return {name: Effect(of=[of], over=[over]) for name, of, over in found.itertuples()}


def _plain(cell: str) -> str:
    """A cell of a Markdown table as plain text: links become their text, and backquotes go."""
    return re.sub(r"\[([^]]+)\]\([^)]+\)", r"\1", cell).replace("`", "").strip()
