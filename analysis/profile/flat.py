"""The list that `perf report` prints first: in which functions the samples are."""

from collections import Counter
from functools import cache
from pathlib import Path

import pandas as pd

from records.profile import IDLE, SERVER, Stack, read_stacks, stacks_path
from records.trials import Trial, read_trials

KERNEL = "[kernel.kallsyms]"


def flat(stacks: list[Stack], only_server: bool = True) -> pd.DataFrame:
    """A row per function, the busiest first, with columns object, symbol, samples, percent.

    only_server: only samples in the server's processes count, with the softirq that ran on top of them; else all
    samples that were not idle. The percentages are of the samples that count.
    """
    counted: Counter[tuple[str, str]] = Counter()
    for stack in stacks:
        if stack.role == SERVER if only_server else stack.role != IDLE:
            counted["kernel" if stack.object == KERNEL else stack.object, stack.frames.rpartition(";")[2]] += (
                stack.samples
            )
    rows = sorted(counted.items(), key=lambda row: (-row[1], row[0]))
    table = pd.DataFrame([(*where, samples) for where, samples in rows], columns=["object", "symbol", "samples"])
    return table.assign(percent=100 * table.samples / max(table.samples.sum(), 1))


def profiles(directory: Path, trials: list[Trial]) -> list[tuple[Trial, list[Stack]]]:
    """The trials that have a profile in the run's directory, each with its stacks."""
    return [
        (trial, _stacks(stacks_path(directory, trial.index)))
        for trial in trials
        if stacks_path(directory, trial.index).exists() and not trial.failed
    ]


_stacks = cache(read_stacks)  # several figures show the same trials, which do not change


def top(directory: Path, rows: int = 20) -> str:
    """The busiest functions over all profiles of a run, as a table for a terminal."""
    table = flat(merged([stacks for _, stacks in profiles(directory, read_trials(directory))]))
    return table.head(rows).to_string(index=False, formatters={"percent": "{:.2f}".format})


def merged(profiles: list[list[Stack]]) -> list[Stack]:
    """Merge several profiles into one: the samples of equal stacks are added."""
    counted: Counter[tuple[str, str, str, str]] = Counter()
    for stack in (stack for stacks in profiles for stack in stacks):
        counted[stack[1:]] += stack.samples
    return [Stack(samples, *where) for where, samples in counted.most_common()]
