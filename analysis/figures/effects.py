"""The effects that the experiment file names: throughput with a component over throughput without it."""

from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from analysis.estimates import contrasts, each
from analysis.figures import forest
from analysis.figures.style import look, note
from analysis.figures.view import View
from analysis.words import place

SPEED_UPS = ("speed-up over base", "speed-up over latest")
CLAIMS = Path(__file__).parent.parent / "published" / "claims.csv"


def draw(view: View) -> tuple[Figure, pd.DataFrame]:
    """The effects that have an interval, in the order of the experiment file. Published ratios are drawn hollow."""
    rows = _rows(view)
    settings = rows.group.unique()
    of = f" of {settings[0]}" if len(settings) == 1 else ""
    figure, _ = forest.draw(rows, view.spec.title, f"ratio of throughputs{of}, 95 % intervals")
    note(figure, f"Slides: {view.spec.slides}." if view.spec.slides else "", view.shared())
    return figure, rows.drop(columns="look")


def _rows(view: View) -> pd.DataFrame:
    found = contrasts(view.trials, view.spec.effects).dropna(subset="low")
    order = {name: number for number, name in enumerate(view.spec.effects)}
    found = found.sort_values(
        ["workload", "cores", "effect"], key=lambda column: column.map(order) if column.name == "effect" else column
    )
    several = len(found[["workload", "cores"]].drop_duplicates()) > 1
    group = found.apply(lambda row: place(row.workload, row.cores), axis=1) if len(found) else found.workload
    return pd.DataFrame(
        {
            "group": group,
            "label": group + "  " + found.effect if several else found.effect,
            "ratio": found.ratio,
            "low": found.low,
            "high": found.high,
            "published": [_published(view, row) for row in each(found)],
            "look": [look(view, "fastsocket")] * len(found),
        }
    )


def _published(view: View, row: Any) -> float:
    """The published ratio for a row; NaN if there is none.

    Published ratios stand beside the largest core count alone. The published speed-ups are of short connections, so
    they stand beside connections per second alone.
    """
    claim = view.spec.effects[row.effect].claim
    is_about_it = row.cores == view.cores[-1] and (claim not in SPEED_UPS or row.metric == "cps")
    return published(claim) if is_about_it else float("nan")


def published(claim: str | None) -> float:
    """The ratio that a claim of analysis/published/claims.csv makes; NaN for None. Raises KeyError if it is unknown."""
    if claim is None:
        return float("nan")
    said = claimed(claim)
    return float(1 + said.value / 100 if said.unit == "%" else said.value)


def claimed(claim: str) -> Any:
    """The first row of a claim in analysis/published/claims.csv. Raises KeyError for an unknown claim."""
    return pd.read_csv(CLAIMS).drop_duplicates("claim").set_index("claim").loc[claim]
