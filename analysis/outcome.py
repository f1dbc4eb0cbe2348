"""What the terminal shows when a run is over."""

from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from analysis.emulated import BANNER, is_emulated
from analysis.estimates import each, throughput
from analysis.live import RATIO, foldable
from analysis.results import Result
from analysis.summary import absence
from analysis.tables import failures, readable_verdicts
from analysis.verdicts import EXPLORATORY
from analysis.words import NOT_AVAILABLE
from records.metrics import METRICS, PASSIVE_LOCAL


def print_outcome(results: list[Result], report: Path) -> None:
    """Print the numbers of one run, or for several runs only the path of their report."""
    if len(results) > 1:
        print(f"all of it: {report}")
    elif results[0].run.options.why_not:
        print(f"{absence(results[0].run)} {report}")
    else:
        _print_numbers(results[0], report)


def _print_numbers(result: Result, report: Path) -> None:
    """Print the estimates with their intervals, the verdicts, reasons to doubt them, and the path of the report."""
    console, emulated = _console(), is_emulated(result.run)
    console.print(_localities(result.summary) if emulated else _outcome(result.summary), "")
    verdicts = readable_verdicts(result.run, result.verdicts[result.verdicts.role != EXPLORATORY])
    if len(verdicts):
        console.print(_as_table(verdicts))
    for doubt in [*([BANNER] if emulated else []), *_doubts(result)]:
        console.print(Text(doubt, style="yellow"))
    count, seconds = len(result.trials), result.run.wall_seconds
    share = sum(trial.seconds for trial in result.trials) / seconds if seconds else 0.0
    console.print(f"{count} trials, {share:.0%} of {seconds:.0f} s measuring; report: {report}", soft_wrap=True)


def _console() -> Console:
    """A console that is wide enough for the tables: at least 80 columns on a terminal, and 160 in a file.

    A narrower terminal wraps lines, instead of losing columns.
    """
    console = Console()
    return Console(width=max(console.width, 80 if console.is_terminal else 160))


def _doubts(result: Result) -> list[str]:
    """A sentence for each reason not to trust the numbers."""
    run, count = result.run, len(result.trials)
    more = f"incomplete: {count} of {run.planned_trials} trials; go on with --resume --out {result.directory}"
    sentences = [*(str(control) for control in result.controls if control.fails), *failures(run, result.trials)]
    return sentences if run.complete else [*sentences, more]


def _outcome(summary: pd.DataFrame) -> Table:
    table = foldable("workload", "cores", "variant", "1/s", RATIO, METRICS[PASSIVE_LOCAL].heading)
    for row in each(throughput(summary)):
        table.add_row(
            row.workload, str(row.cores), row.variant, f"{row.estimate:,.0f}", _ratio(row), _local(summary, row)
        )
    return table


def _localities(summary: pd.DataFrame) -> Table:
    table = foldable("workload", "cores", "variant", METRICS[PASSIVE_LOCAL].heading)
    for row in each(summary.drop_duplicates(["workload", "variant", "cores"])):
        table.add_row(row.workload, str(row.cores), row.variant, _local(summary, row))
    return table


def _local(summary: pd.DataFrame, row: Any) -> str:
    """The percentage of passive local reads at the setting and variant of a summary's row, as a text."""
    local = summary[
        (summary.workload == row.workload)
        & (summary.cores == row.cores)
        & (summary.variant == row.variant)
        & (summary.metric == PASSIVE_LOCAL)
    ]
    return f"{local.estimate.iloc[0]:.2f}" if len(local) else NOT_AVAILABLE


def _as_table(frame: pd.DataFrame) -> Table:
    table = foldable(*(name.replace(" ", "\n") for name in map(str, frame.columns)))
    for row in frame.itertuples(index=False):
        table.add_row(*row)
    return table


def _ratio(row: Any) -> str:
    if row.ratio_low != row.ratio_low:  # NaN: no interval, no claim
        return ""
    return f"{row.ratio_to_base:.3f} ({row.ratio_low:.3f} to {row.ratio_high:.3f})"
