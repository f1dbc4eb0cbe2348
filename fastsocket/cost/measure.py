"""Measure in several processes, and put their results together.

Within a process the median over rounds counts, because other work on the machine can only add time. The loader puts
code and data at other addresses in each process, which changes the time of a call by a nanosecond or so. Therefore the
interval is computed over processes.
"""

import os
import subprocess
from collections import defaultdict
from dataclasses import dataclass
from math import comb
from pathlib import Path
from statistics import median

CONFIDENCE = 0.95

Case = tuple[str, str]  # the call, and the kind of descriptor on which it is made


@dataclass(frozen=True)
class Cost:
    """Nanoseconds per call: medians over processes, and the difference's interval unless the processes are too few."""

    call: str
    on: str
    libc: float
    library: float
    added: float
    added_low: float | None
    added_high: float | None


def measure(program: list[str], library: Path, processes: int) -> list[Cost]:
    """The costs that a program measures, in the order in which it prints them."""
    samples: dict[Case, list[tuple[float, float, float]]] = defaultdict(list)
    for _ in range(processes):
        for case, measured in _medians(_run(program, library)).items():
            samples[case].append(measured)
    return [_cost(case, measured) for case, measured in samples.items()]


def median_interval(values: list[float]) -> tuple[float, float] | None:
    """The narrowest pair of order statistics that has the median between them in 95 % of samples; None: too few values.

    The interval assumes nothing about the distribution (Conover: Practical Nonparametric Statistics, 3.2).
    """
    ordered, n = sorted(values), len(values)
    outside = 0.0
    for rank in range(n // 2):
        outside += 2 * comb(n, rank) / 2**n
        if outside > 1 - CONFIDENCE:
            return (ordered[rank - 1], ordered[n - rank]) if rank else None
    return None


def table(costs: list[Cost]) -> str:
    """The costs as a table of text for people."""
    rows = [("call", "on", "libc", "library", "added", "95 % interval"), *map(_row, costs)]
    return "nanoseconds per call\n" + "\n".join(
        f"{call:12} {on:22} {libc:>8} {library:>8} {added:>8}  {interval}"
        for call, on, libc, library, added, interval in rows
    )


def _row(cost: Cost) -> tuple[str, ...]:
    interval = "too few processes" if cost.added_low is None else f"{cost.added_low:.1f} to {cost.added_high:.1f}"
    return cost.call, cost.on, f"{cost.libc:.1f}", f"{cost.library:.1f}", f"{cost.added:.1f}", interval


def _run(program: list[str], library: Path) -> str:
    environment = {**os.environ, "LD_PRELOAD": str(library)}
    return subprocess.run(program, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout


def _medians(lines: str) -> dict[Case, tuple[float, float, float]]:
    """The medians over one process's rounds, by case: libc's time, the library's time, and the difference of both."""
    rounds: dict[Case, list[tuple[float, float, float]]] = defaultdict(list)
    for line in lines.splitlines():
        call, on, *times = line.split("\t")
        libc, library = map(float, times)
        rounds[call, on].append((libc, library, library - libc))
    return {case: tuple(map(median, zip(*times))) for case, times in rounds.items()}


def _cost(case: Case, measured: list[tuple[float, float, float]]) -> Cost:
    libc, library, added = zip(*measured)
    return Cost(*case, median(libc), median(library), median(added), *(median_interval(list(added)) or (None, None)))
