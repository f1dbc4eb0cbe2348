"""What the terminal shows while trials run: a table that fills. It does without pandas, because a sweep that draws no
report need not load pandas."""

import time
from collections import defaultdict
from contextlib import AbstractContextManager
from pathlib import Path
from statistics import median
from typing import Self

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Column, Table

from analysis.words import NOT_AVAILABLE, counted
from records.metrics import METRICS, P99, PASSIVE_LOCAL, THROUGHPUT
from records.run import Run
from records.trials import Trial, read_trials

SHOWN = (P99, PASSIVE_LOCAL)  # the metrics shown beside the throughput
RATIO = "ratio to base"
COLUMNS = ("workload", "cores", "variant", "trials", "median 1/s", *(METRICS[name].heading for name in SHOWN), "errors")


class LiveTable(AbstractContextManager["LiveTable"]):
    """Shows the medians so far, the progress and the time left. Without a terminal it prints a line per block, and one
    for each failed trial."""

    def __init__(self, run: Run, directory: Path):
        self._run = run
        self._trials = read_trials(directory)  # if the run is resumed: the trials that it had before
        self._resumed_at = len(self._trials)
        self._first_ended = 0.0
        self._console = Console()
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[left]} left"),
            console=self._console,
        )
        self._task = self._progress.add_task(
            "trials", total=run.planned_trials, completed=len(self._trials), left=self._time_left()
        )
        self._live = Live(self._render(), console=self._console, refresh_per_second=2)

    def _time_left(self) -> str:
        """The time left as minutes:seconds, at the pace since the first trial ended.

        The time before that is left out, because preparations happen once. Until the second trial ends, a trial is
        taken to need only the seconds of its load.
        """
        done = len(self._trials) - self._resumed_at - 1
        pace = (time.monotonic() - self._first_ended) / done if done > 0 else self._run.options.seconds
        minutes, seconds = divmod(round((self._run.planned_trials - len(self._trials)) * pace), 60)
        return f"{minutes}:{seconds:02}"

    def __enter__(self) -> Self:
        for placement in self._run.placements:
            if placement.shared:
                shared = counted(len(placement.shared), "CPU")
                self._console.print(f"{counted(placement.cores)}: the load generator shares {shared} with the server")
        if self._console.is_terminal:
            self._live.start(refresh=True)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def add(self, trial: Trial) -> None:
        """Show one more trial."""
        new_block = not self._trials or self._trials[-1].block != trial.block
        if len(self._trials) == self._resumed_at:
            self._first_ended = time.monotonic()
        self._trials.append(trial)
        self._progress.update(self._task, completed=len(self._trials), left=self._time_left())
        if self._console.is_terminal:
            self._live.update(self._render())
        elif trial.failed:
            self._console.print(
                f"{trial.workload} {trial.arm} on {counted(trial.cores)} failed: {trial.failed}", soft_wrap=True
            )
        elif new_block:
            self._console.print(f"block {trial.block + 1} of {self._run.options.blocks}, {self._time_left()} left")

    def _render(self) -> Group:
        return Group(_medians(self._trials), self._progress)


def _medians(trials: list[Trial]) -> Table:
    table = foldable(*COLUMNS)
    groups = defaultdict(list)
    for trial in trials:
        groups[trial.workload, trial.cores, trial.arm].append(trial)
    for (workload, cores, arm), group in sorted(groups.items()):
        table.add_row(
            workload,
            str(cores),
            arm,
            str(len(group)),
            _median(group, *THROUGHPUT),
            *(_median(group, metric) for metric in SHOWN),
            _errors(group),
        )
    return table


def _errors(trials: list[Trial]) -> str:
    """A text with the number of the load generator's errors and, if any, of failed trials."""
    failed = sum(bool(trial.failed) for trial in trials)
    return f"{sum(trial.metrics.get('errors', 0) for trial in trials):.0f}" + (f", {failed} failed" if failed else "")


def _median(trials: list[Trial], *metrics: str) -> str:
    """The median, as a text, of the one metric among these that the trials have."""
    found = [metric for metric in metrics if any(metric in trial.metrics for trial in trials)]
    values = [trial.metrics[metric] for trial in trials for metric in found if metric in trial.metrics]
    return f"{median(values):,.{METRICS[found[0]].digits}f}" if values else NOT_AVAILABLE


def foldable(*headings: str) -> Table:
    """A table that loses no character in a narrow terminal: a ratio stays on one line, other texts are wrapped."""
    columns = [Column(name, overflow="fold", no_wrap=name in (RATIO, "ratio")) for name in headings]
    return Table(*columns, box=box.SIMPLE_HEAD, padding=0, show_edge=False)
