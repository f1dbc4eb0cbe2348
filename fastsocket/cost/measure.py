"""Measuring in several processes, and what they say together.

Within a process the median over rounds is what counts, because whatever else runs on the machine only ever adds time.
Where the loader puts code and data differs from process to process and moves a call by a nanosecond or so, so
processes are what the interval is taken over.
"""

import os
import subprocess
from collections import defaultdict
from dataclasses import dataclass
from math import comb
from pathlib import Path
from statistics import median

CONFIDENCE = 0.95

Case = tuple[str, str]  # the call, and what it is made on


@dataclass(frozen=True)
class Cost:
    """Nanoseconds per call: medians over processes, and an interval of the difference unless they are too few."""

    call: str
    on: str
    libc: float
    library: float
    added: float
    added_low: float | None
    added_high: float | None


def measure(program: list[str], library: Path, processes: int) -> list[Cost]:
    """The costs that a program tells of, in its order."""
    samples: dict[Case, list[tuple[float, float, float]]] = defaultdict(list)
    for _ in range(processes):
        for case, measured in _medians(_run(program, library)).items():
            samples[case].append(measured)
    return [_cost(case, measured) for case, measured in samples.items()]


def median_interval(values: list[float]) -> tuple[float, float] | None:
    """The narrowest pair of order statistics that has the median between them in 95 % of samples, if there is one.

    It supposes nothing of the distribution (Conover: Practical Nonparametric Statistics, 3.2).
    """
    ordered, n = sorted(values), len(values)
    outside = 0.0
    for rank in range(n // 2):
        outside += 2 * comb(n, rank) / 2**n
        if outside > 1 - CONFIDENCE:
            return (ordered[rank - 1], ordered[n - rank]) if rank else None
    return None


def table(costs: list[Cost]) -> str:
    """For people."""
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
    """Of each case in a process: libc's time, the library's, and the difference within rounds."""
    rounds: dict[Case, list[tuple[float, float, float]]] = defaultdict(list)
    for line in lines.splitlines():
        call, on, *times = line.split("\t")
        libc, library = map(float, times)
        rounds[call, on].append((libc, library, library - libc))
    return {case: tuple(map(median, zip(*times))) for case, times in rounds.items()}


def _cost(case: Case, measured: list[tuple[float, float, float]]) -> Cost:
    libc, library, added = zip(*measured)
    return Cost(*case, median(libc), median(library), median(added), *(median_interval(list(added)) or (None, None)))
