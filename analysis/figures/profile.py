"""The slides' two lists of the functions with most CPU time, the difference between base and Fastsocket, and flame
graphs."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from analysis.estimates import each
from analysis.figures.style import QUIET, Look, bar, look, note, say
from analysis.figures.view import View
from analysis.profile.flamegraph import flame_graph
from analysis.profile.flat import flat, merged, profiles
from analysis.profile.speedscope import speedscope
from analysis.statistics import mean_interval
from analysis.summary import OURS
from analysis.words import called
from records.metrics import THROUGHPUT
from records.profile import FREQUENCY, NO_SYMBOL, Stack
from records.trials import BASE, CONTROL, Trial

PUBLISHED = Path(__file__).parent.parent / "published" / "profile.csv"
PUBLISHED_AS = {BASE: "Linux 2.6.32", OURS: "Fastsocket on Linux 2.6.32"}
ROWS = 11  # as many as the slides print
WIDEST = 80  # end of the axis in percent: the largest published share fits in
FLAME = "flame-"
_WHERE = ["object", "symbol"]
_WHOSE = (
    "Samples in the server's processes, with the softirq that ran on top of them. The clock's interrupt waits while "
    "interrupts are off: such time is counted where they come on again (handle_softirqs, _raw_spin_unlock_irqrestore)."
)


def draw(view: View) -> tuple[Figure, pd.DataFrame]:
    """The functions with most samples: our list with intervals over blocks, and beside it the published list."""
    variant = view.variants[0]
    ours, theirs = _shares(view, variant), pd.read_csv(PUBLISHED).query("system == @variant").head(ROWS)
    apart = ConstrainedLayoutEngine(w_pad=0.2)  # so that a percentage does not touch the next name
    figure = Figure(figsize=(11, 1.6 + 0.34 * ROWS), layout=apart)
    mine, published = figure.subplots(1, 2)
    _list(mine, ours, f"{' and '.join(map(called, view.workloads))}, {view.label(variant)}: here", look(view, variant))
    _list(
        published,
        theirs,
        f"published: {PUBLISHED_AS.get(variant, 'nothing of it')}".replace(" on ", "\non "),
        {"color": QUIET, "marker": "D", "markerfacecolor": "none", "markersize": 6},
    )
    for axes in (mine, published):  # one scale for all lists: base and Fastsocket, measured and published
        axes.set_xlim(-1, WIDEST)
    note(figure, _WHOSE, "Bars: 95 % intervals." if ours.low.notna().any() else "", view.shared())
    return figure, pd.concat([ours.assign(source="measured here"), theirs.drop(columns="system")])


def draw_difference(view: View) -> tuple[Figure, pd.DataFrame]:
    """CPU time per request of fastsocket less that of base: for all functions together, and for those that differ most.

    Hollow marks are the A/A control less base.
    """
    shown = _differences(view)
    figure = Figure(figsize=(8.5, 1.8 + 0.3 * ROWS), layout="constrained")
    figure.suptitle(view.spec.title, x=0.02, ha="left", fontweight="bold")
    axes = figure.subplots()
    if shown.empty:
        say(axes, "It takes profiles of base, fastsocket and the A/A control.")
        return figure, shown
    axes.axvline(0, color=QUIET, linewidth=1)
    for y, row in enumerate(each(shown)):
        if not np.isnan(row.low):
            bar(axes, y, row.low, row.high, look(view, OURS)["color"])
        axes.plot(row.difference, y, **look(view, OURS))
        axes.plot(row.difference_control, y, **{**look(view, CONTROL), "markerfacecolor": "none", "markeredgewidth": 1})
    _name_rows(axes, shown)
    axes.set_xlabel("µs of CPU time per request, less base's")
    note(
        figure,
        "Filled: fastsocket; hollow: the A/A control.",
        _WHOSE,
        "Bars: 95 % intervals." if shown.low.notna().any() else "",
        view.shared(),
    )
    return figure, shown


def _differences(view: View) -> pd.DataFrame:
    """A row for each of the ROWS functions that differ most from base, sorted by the difference, and a row for all
    functions together. Empty unless base, fastsocket and the A/A control have profiles."""
    rates, columns = _per_request(view), [*_WHERE, "difference", "low", "high", "difference_control"]
    changed, control = _paired(rates, OURS), _paired(rates, CONTROL)
    if changed.empty or control.empty:
        return pd.DataFrame(columns=columns)
    largest = changed.mean().abs().sort_values(ascending=False, kind="stable").index[:ROWS]
    parts = {where: (changed[where], control[where]) for where in largest}
    parts["kernel", "all functions"] = changed.sum(axis=1), control.sum(axis=1)
    rows = [
        (*where, of_ours.mean(), *mean_interval(of_ours.to_numpy()), of_control.mean())
        for where, (of_ours, of_control) in parts.items()
    ]
    return pd.DataFrame(rows, columns=columns).sort_values("difference", key=_all_last)


def _all_last(differences: pd.Series) -> pd.Series:
    """The key to sort by: the difference, but infinity for the last row. So the row of all functions stays last, which
    is at the top of the figure."""
    return differences.where(differences.index < len(differences) - 1, np.inf)


def write_flame_graphs(directory: Path, trials: list[Trial]) -> list[Path]:
    """A flame graph for each workload and variant, and a speedscope file for each workload, into directory/figures.

    The A/A control counts as base.
    """
    found, written = profiles(directory, trials), []
    for workload in sorted({trial.workload for trial, _ in found}):
        variants: dict[str, list[list[Stack]]] = {}
        for trial, stacks in found:
            if trial.workload == workload:
                variants.setdefault(trial.variant, []).append(stacks)
        whole = {variant: merged(stacks) for variant, stacks in sorted(variants.items())}
        for variant, stacks in whole.items():
            written.append(directory / "figures" / f"{FLAME}{workload}-{variant}.svg")
            written[-1].write_text(flame_graph(stacks, f"{workload}, {variant}"))
        written.append(directory / "figures" / f"{workload}.speedscope.json")
        written[-1].write_text(speedscope(whole))
    return written


def _list(axes: Axes, rows: pd.DataFrame, title: str, drawn: Look) -> None:
    axes.set_title(title, loc="left")
    if rows.empty:
        say(axes, "There is no profile of it.")
        return
    for y, row in enumerate(each(rows)):
        if not np.isnan(getattr(row, "low", np.nan)):
            bar(axes, y, row.low, row.high, drawn["color"])
        axes.plot(row.percent, y, **drawn)
        axes.annotate(
            f"{row.percent:.2f}", (1.01, y), xycoords=("axes fraction", "data"), va="center", fontsize="small"
        )
    _name_rows(axes, rows)
    axes.invert_yaxis()
    axes.set_xlabel("% of the samples")


def _name_rows(axes: Axes, rows: pd.DataFrame) -> None:
    axes.set_yticks(range(len(rows)), [_called(row) for row in each(rows)], fontsize="small")
    axes.grid(visible=False, axis="y")


def _called(row: Any) -> str:
    if row.symbol == NO_SYMBOL:
        return f"code of {row.object}, which has no symbols"
    return row.symbol if row.object in ("kernel", row.symbol) else f"{row.symbol}  ({row.object})"


def _by_trial(view: View, arms: list[str]) -> pd.DataFrame:
    """Samples: a row per trial, indexed by arm, block, trial and thousands of requests, and a column per function."""
    counted = {}
    for trial, stacks in profiles(view.directory, view.trials):
        if trial.arm in arms:
            served = next(trial.metrics[metric] for metric in THROUGHPUT if metric in trial.metrics)
            key = trial.arm, trial.block, trial.index, served * trial.seconds / 1000
            counted[key] = flat(stacks).set_index(_WHERE).samples
    if not counted:
        return pd.DataFrame(index=pd.MultiIndex.from_arrays([[]] * 4), columns=pd.MultiIndex.from_arrays([[], []]))
    return pd.concat(counted, axis=1).T.fillna(0)


def _shares(view: View, variant: str) -> pd.DataFrame:
    counted = _by_trial(view, [variant])
    percent = counted.div(counted.sum(axis=1), axis=0) * 100
    blocks = percent.groupby(level=1).mean()
    first: Any = blocks.mean().sort_values(ascending=False, kind="stable").head(ROWS)
    return pd.DataFrame(
        [(*where, mean, *np.clip(mean_interval(blocks[where].to_numpy()), 0, 100)) for where, mean in first.items()],
        columns=[*_WHERE, "percent", "low", "high"],
    ).assign(samples=int(counted.to_numpy().sum()))


def _per_request(view: View) -> pd.DataFrame:
    counted = _by_trial(view, [BASE, OURS, CONTROL])
    rates = counted.div(counted.index.get_level_values(3), axis=0)
    return rates.groupby(level=[0, 1]).mean() * 1000 / FREQUENCY  # samples per 1,000 requests become µs per request


def _paired(rates: Any, arm: str) -> pd.DataFrame:
    """The rates of an arm less those of base: a row per block that has both, and a column per function."""
    if not {arm, BASE} <= set(rates.index.get_level_values(0)):
        return pd.DataFrame()
    difference: pd.DataFrame = (rates.loc[arm] - rates.loc[BASE]).dropna()
    return difference
