"""How often locks were waited for, per connection."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.estimates import each
from analysis.figures.style import bar, look, note, say
from analysis.figures.view import View
from analysis.words import NOT_AVAILABLE, NOT_MEASURED, called, counted
from records.metrics import CONTENTIONS


def draw(view: View) -> tuple[Figure, pd.DataFrame]:
    """Axes for each workload, because servers differ tenfold, with a line per core count and variant."""
    rows = _rows(view)
    lines = rows.groupby("workload", sort=False).size()
    figure = Figure(figsize=(8.5, 1.6 + 0.75 * max(len(lines), 1) + 0.36 * max(len(rows), 3)), layout="constrained")
    figure.suptitle(view.spec.title, x=0.02, ha="left", fontweight="bold")
    if rows.empty:
        say(figure.subplots(), f"{NOT_AVAILABLE}: {view.run.unavailable.get(CONTENTIONS, NOT_MEASURED)}")
        return figure, rows
    grid = figure.subplots(len(lines), squeeze=False, height_ratios=list(lines))
    for (workload, of_workload), axes in zip(rows.groupby("workload", sort=False), grid[:, 0]):
        axes.set_title(called(str(workload)), loc="left")
        _contentions(axes, view, of_workload)
    grid[-1, 0].set_xlabel("lock contentions of the whole machine per connection, 95 % intervals")
    note(figure, f"Slides: {view.spec.slides}." if view.spec.slides else "")
    return figure, rows


def _contentions(axes: Axes, view: View, rows: pd.DataFrame) -> None:
    for y, row in enumerate(each(rows)):
        bar(axes, y, row.ci_low, row.ci_high, look(view, row.variant)["color"])
        axes.plot(row.estimate, y, **look(view, row.variant))
        axes.annotate(
            f"{row.estimate:.3f}", (1.02, y), xycoords=("axes fraction", "data"), va="center", fontsize="small"
        )
    axes.set_yticks(range(len(rows)), [f"{counted(row.cores)}  {view.label(row.variant)}" for row in each(rows)])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(left=0)
    axes.grid(visible=False, axis="y")


def _rows(view: View) -> pd.DataFrame:
    rows = view.summary[(view.summary.metric == CONTENTIONS) & view.summary.variant.isin(view.variants)]
    order = {name: number for number, name in enumerate([*view.workloads, *view.variants])}
    return rows.sort_values(["workload", "cores", "variant"], key=lambda column: column.map(lambda x: order.get(x, x)))[
        ["workload", "variant", "cores", "estimate", "ci_low", "ci_high"]
    ]
