"""The slides' Local Listen Table, step by step: from which queue each core's accept() took its connections."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures.style import note, say
from analysis.figures.view import View
from analysis.figures.walk import traced_walks

TAKEN_UP, SYN = "adopted", "SYN"
_ACCEPTED = ["accepted_global", "accepted_local", "accepted_neighbour"]
_STEPS = {  # in the slides' order: a counter of the library, or SYN -> what the step is
    TAKEN_UP: "(1, 2) local_listen(): listeners taken up",
    SYN: "(3–5) the SYN finds the core's local listener: % of all",
    _ACCEPTED[0]: "(6, 7) accept() finds it in the global queue: % of the core's",
    _ACCEPTED[1]: "(8–10) accept() finds it in the local queue: % of the core's",
    _ACCEPTED[2]: "not in the slides: in a neighbour's queue: % of the core's",
}
_ORDER = (
    "The slides look at the global queue first, at each accept(). The library looks at the local one first, and at the "
    "global one when that is empty, and now and then."
)


def draw(view: View) -> tuple[Figure, pd.DataFrame]:
    """A table for each variant with the library: a row per step, a column per core. Other variants have one queue for
    all cores, and are left out."""
    tables = {variant: table for variant in view.variants if len(table := _by_core(view, variant))}
    figure = Figure(figsize=(9, 1.1 + 2.4 * max(len(tables), 1)), layout="constrained")
    figure.suptitle(view.spec.title, x=0.02, ha="left", fontweight="bold")
    grid = figure.subplots(max(len(tables), 1), 1, squeeze=False)[:, 0]
    if not tables:
        say(grid[0], "No trial ran with the library.")
    for (variant, table), axes in zip(tables.items(), grid):
        axes.set_title(view.label(variant), loc="left")
        _cells(axes, table)
    note(figure, _ORDER)
    columns = ["variant", "step", "cpu", "value"]
    told = [table.rename_axis("step").reset_index().melt("step", var_name="cpu") for table in tables.values()]
    rows = [rows.assign(variant=variant) for variant, rows in zip(tables, told)]
    return figure, pd.concat(rows)[columns] if rows else pd.DataFrame(columns=columns)


def _by_core(view: View, variant: str) -> pd.DataFrame:
    """The numbers of a variant: a row for each step, and a column for each core whose worker adopted a listener."""
    counted = [
        {"cpu": on_cpu.cpu, **on_cpu.counts}
        for trial in view.trials
        if trial.variant == variant and trial.library
        for on_cpu in trial.library
    ]
    if not counted:
        return pd.DataFrame()
    counts = (
        pd.DataFrame(counted).groupby("cpu").agg({TAKEN_UP: "max", **dict.fromkeys(_ACCEPTED, "sum")}).astype(float)
    )
    counts = counts[counts[TAKEN_UP] > 0]
    walks = traced_walks(view)
    syns = walks[(walks.variant == variant) & (walks.step == 3)].cpu.value_counts(normalize=True)
    counts[SYN] = 100 * syns.reindex(counts.index, fill_value=0)
    accepted = counts[_ACCEPTED].sum(axis=1)
    counts[_ACCEPTED] = 100 * counts[_ACCEPTED].div(accepted.where(accepted > 0), axis=0)
    return counts[list(_STEPS)].T


def _cells(axes: Axes, table: pd.DataFrame) -> None:
    axes.imshow(table.drop(TAKEN_UP).reindex(table.index, fill_value=0), cmap="Greys", vmin=0, vmax=250, aspect="auto")
    for y, (step, values) in enumerate(table.iterrows()):
        for x, value in enumerate(values):
            axes.text(x, y, f"{value:.0f}" if step == TAKEN_UP else f"{value:.1f} %", ha="center", va="center")
    axes.set_xticks(range(len(table.columns)), [f"core {cpu}" for cpu in table.columns])
    axes.set_yticks(range(len(table)), list(_STEPS.values()))
    axes.grid(visible=False)
