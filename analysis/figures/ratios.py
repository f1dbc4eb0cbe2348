"""Each variant's throughput or, at a given rate, its cost per request, as a ratio to base."""

import pandas as pd
from matplotlib.figure import Figure

from analysis.estimates import each, outcome
from analysis.figures import forest
from analysis.figures.style import look, note
from analysis.figures.view import View
from analysis.words import place
from records.metrics import METRICS

_COLUMNS = ["group", "label", "ratio", "low", "high", "published", "look"]


def draw(view: View) -> tuple[Figure, pd.DataFrame]:
    """A forest plot of the ratios to base. Ratios without an interval are left out."""
    rows = _rows(view)
    figure, _ = forest.draw(rows, view.spec.title, _axis(view))
    note(figure, "control is base against itself.", view.shared())
    return figure, rows.drop(columns=["look", "published"])


def _rows(view: View) -> pd.DataFrame:
    answered = {
        (row.workload, row.cores, row.variant): row
        for row in each(outcome(view.run, view.summary).dropna(subset=["ratio_low"]))
    }
    order = [(workload, cores, arm) for workload in view.workloads for cores in view.cores for arm in view.arms]
    return pd.DataFrame(
        [
            (
                place(workload, cores),
                f"{place(workload, cores)}  {view.label(arm)}",
                row.ratio_to_base,
                row.ratio_low,
                row.ratio_high,
                float("nan"),
                look(view, arm),
            )
            for workload, cores, arm in order
            if (row := answered.get((workload, cores, arm)))
        ],
        columns=_COLUMNS,
    )


def _axis(view: View) -> str:
    asked = {
        METRICS[view.run.options.cost].called if view.run.options.at_rate(workload) else "throughput"
        for workload in view.workloads
    }
    return f"{' or '.join(sorted(asked))}, ratio to base, 95 % intervals"
