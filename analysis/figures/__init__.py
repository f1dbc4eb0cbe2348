"""Draws the figures of a run without a display. The same data gives the same files, byte for byte."""

import ctypes
import os
import signal
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from analysis.emulated import is_emulated
from analysis.figures import profile
from analysis.figures.style import STYLE, say
from analysis.figures.view import View
from analysis.results import Result
from analysis.words import NOT_AVAILABLE
from records.kinds import KINDS
from records.run import Run

matplotlib.use("Agg")

_PR_SET_PDEATHSIG = 1  # in <linux/prctl.h>
_FLAMES = "flame graphs"  # the name for all flame graphs of a run, which are drawn at once
_PROCESSES = min(8, len(os.sched_getaffinity(0)))  # processes that draw, of 100 MB each

_PLAIN: dict[str, dict[str, Any]] = {
    "svg": {"metadata": {"Date": None, "Creator": None}},  # no dates and versions: the same data, the same bytes
    "png": {"metadata": {"Software": None}, "dpi": 160},
    "pdf": {"metadata": {"CreationDate": None, "Creator": None, "Producer": None}},
}


class FigureError(Exception):
    """The caller asked for an unknown figure; the message lists the known ones."""

    exit_status = 2


def draw_figures(result: Result, only: str | None = None) -> list[Path]:
    """Draw all figures, or the one with the id ``only``, into the run's figures/: .svg, .png, .pdf, and the data as
    .csv. Returns the paths."""
    folder = result.directory / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    chosen = [spec for spec in result.run.options.figures if only in (None, spec.id)]
    drawn = [path for spec in chosen for path in _drawn(folder, View(spec, result))]
    return drawn + (profile.write_flame_graphs(result.directory, result.trials) if only in (None, _FLAMES) else [])


def draw_all(results: list[Result], only: str | None = None) -> list[Path]:
    """Draw the figures of several results as draw_figures() does, on several CPUs. Returns the paths.

    Raises FigureError if no result has the figure ``only``.
    """
    require_figure(only, [result.run for result in results])
    with ProcessPoolExecutor(_PROCESSES, get_context("fork"), _begin, (results,)) as pool:
        drawing = [
            pool.submit(_draw_one, number, name)
            for number, result in enumerate(results)
            for name in (*figure_ids(result.run), _FLAMES)
            if only in (None, name)
        ]
        try:
            return [path for drawn in drawing for path in drawn.result()]
        finally:
            pool.shutdown(cancel_futures=True)  # after an interruption, the rest is not drawn


_shared: list[Result] = []  # in a process that draws: the results, which a fork has without a copy


def _begin(results: list[Result]) -> None:
    """Prepare a process that draws. It ends with its parent, even if the parent is killed. It also ends at a Ctrl-C,
    unless the parent ignores that."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    _shared[:] = results


def _draw_one(number: int, name: str) -> list[Path]:
    return draw_figures(_shared[number], name)


def require_figure(name: str | None, runs: list[Run]) -> None:
    """Raises FigureError if none of the runs has a figure with this id. None stands for all figures."""
    known = [one for run in runs for one in figure_ids(run)]
    if name not in (None, *known):
        raise FigureError(f"no figure {name}; there are: {', '.join(known)}")


def figure_ids(run: Run) -> list[str]:
    """The ids of a run's figures, in the order in which the run lists them."""
    return [spec.id for spec in run.options.figures]


def _drawn(folder: Path, view: View) -> list[Path]:
    with matplotlib.rc_context(STYLE):
        why_not = view.run.options.why_not or _why_no_timing(view)
        figure, shown = _unavailable(view, why_not) if why_not else _draw(view)
        return [*_save(folder, view.spec.id, figure), _save_data(folder / f"{view.spec.id}.csv", shown)]


def _draw(view: View) -> tuple[Figure, pd.DataFrame]:
    kind = KINDS[view.spec.kind]
    drawn: tuple[Figure, pd.DataFrame] = getattr(import_module(f"analysis.figures.{kind.module}"), kind.function)(view)
    return drawn


def _why_no_timing(view: View) -> str:
    emulated = is_emulated(view.run) and KINDS[view.spec.kind].timed
    return "it depends on time, which an emulated guest cannot tell" if emulated else ""


def _unavailable(view: View, why_not: str) -> tuple[Figure, pd.DataFrame]:
    figure = Figure(figsize=(6, 2), layout="constrained")
    axes = figure.subplots()
    axes.set_title(view.spec.title, loc="left")
    why, slides = f"{NOT_AVAILABLE}: {why_not}", f". In the slides: {view.spec.slides}" if view.spec.slides else ""
    say(axes, why + slides)
    return figure, pd.DataFrame({"unavailable": [why]})


def draw_into(folder: Path, name: str, draw: Callable[[], tuple[Figure, pd.DataFrame]]) -> list[Path]:
    """Draw a figure that belongs to no run, in the same style and with the same kinds of file. Returns the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(STYLE):
        figure, shown = draw()
        return [*_save(folder, name, figure), _save_data(folder / f"{name}.csv", shown)]


def _save(folder: Path, name: str, figure: Figure) -> list[Path]:
    paths = {suffix: folder / f"{name}.{suffix}" for suffix in _PLAIN}
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # the layout is computed once for all formats
    for suffix, path in paths.items():
        figure.savefig(path, **_PLAIN[suffix])
    return list(paths.values())


def _save_data(path: Path, shown: pd.DataFrame) -> Path:
    shown.to_csv(path, index=False)
    return path
