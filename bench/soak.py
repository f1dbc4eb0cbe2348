"""Millions of connections through one server under the library: do its memory, its descriptors or its latency grow?

python3 -m bench.soak nginx                  for 15 minutes, at full speed
python3 -m bench.soak haproxy --minutes 30

The server is loaded in windows of ten seconds. After each window the memory and the descriptors of all its processes
are counted. The first tenth of the windows is left out: a server takes what it needs then. The answer is the growth
for each million connections, by the slope of Theil and Sen with its 95 % interval. The exit status is 1 where memory or
descriptors grow, or a connection failed.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from scipy.stats import theilslopes

from bench.experiment import usable_cpus
from bench.served import serving
from fastsocket.processes import family
from workloads import WORKLOADS, generator
from workloads.load import Demand
from workloads.process import WorkloadError
from workloads.variants import VARIANTS
from workloads.workload import Cpus

WINDOW_SECONDS = 10
BEGINNING = 0.1  # the part of the windows, from the first on, that is left out
SHORTEST_MINUTES = 2
CLOSING_SECONDS, PAUSE_SECONDS = 2.0, 0.1
MILLION = 1e6
MAY_GROW = ("p99_ms",)  # latency also grows by what else the machine does; the other numbers are the server's alone


class Window(NamedTuple):
    """What was counted after one window of load."""

    connections: int  # in all windows so far
    memory_kb: int  # proportional set size of all the server's processes: /proc/PID/smaps_rollup
    descriptors: int  # of all the server's processes
    p99_ms: float  # in this window
    errors: int  # in this window


def soak(name: str, minutes: float) -> Iterator[Window]:
    """Load a server under the library for so many minutes. Yields a Window after each window. Raises WorkloadError."""
    workload, cpus = WORKLOADS[name], Cpus(usable_cpus(), usable_cpus())
    ends, connections = time.monotonic() + 60 * minutes, 0
    with serving(cpus, workload, VARIANTS["fastsocket"]) as (testbed, pid):
        while time.monotonic() < ends:
            load = workload.load(testbed, cpus, Demand(WINDOW_SECONDS, pace=workload.rehearse(testbed, cpus)))
            connections += load.served
            processes = family(pid)
            yield Window(
                connections,
                sum(map(memory_of, processes)),
                descriptors_of(processes),
                load.latency_ms["99"],
                sum(load.errors.values()),
            )


def memory_of(pid: int) -> int:
    """The proportional set size of a process in KB."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))


def descriptors_of(processes: list[int]) -> int:
    """How many descriptors these processes have open.

    It waits until the last connections of the load are closed, which is when two counts in a row are the same, or until
    CLOSING_SECONDS have passed.
    """
    counts = [-1]
    for _ in range(int(CLOSING_SECONDS / PAUSE_SECONDS)):
        counts.append(sum(len(os.listdir(f"/proc/{process}/fd")) for process in processes))
        if counts[-1] == counts[-2]:
            break
        time.sleep(PAUSE_SECONDS)
    return counts[-1]


def growth(windows: list[Window]) -> dict[str, dict[str, float]]:
    """For memory, descriptors and latency: the first and the last value, and the growth for each million connections
    with its 95 % interval."""
    settled = windows[int(BEGINNING * len(windows)) :]
    at = [window.connections / MILLION for window in settled]
    found = {}
    for name in ("memory_kb", "descriptors", "p99_ms"):
        values = [float(getattr(window, name)) for window in settled]
        slope, _, low, high = map(float, theilslopes(values, at))
        found[name] = {"first": values[0], "last": values[-1], "per_million": slope, "low": low, "high": high}
    return found


def grows(found: dict[str, dict[str, float]]) -> list[str]:
    """The names of the numbers that grow and should not: those whose interval lies above 0, but for MAY_GROW."""
    return [name for name, one in found.items() if name not in MAY_GROW and one["low"] > 0]


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python3 -m bench.soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("workload", choices=[name for name, workload in WORKLOADS.items() if workload.metric == "cps"])
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    if options.minutes < SHORTEST_MINUTES:
        parser.error(f"--minutes {options.minutes}: fewer than {SHORTEST_MINUTES} show no slope")
    generator.build()
    windows: list[Window] = []
    began = time.monotonic()
    try:
        for window in soak(options.workload, options.minutes):
            windows.append(window)
            left = max(0.0, 60 * options.minutes - (time.monotonic() - began))
            print(f"{window.connections / MILLION:.2f} million, {left / 60:.0f} min left", file=sys.stderr)
        found = growth(windows)
    except WorkloadError as error:
        print(f"bench.soak: {error}", file=sys.stderr)
        return error.exit_status
    errors, growing = sum(window.errors for window in windows), grows(found)
    said: dict[str, Any] = {
        "workload": options.workload,
        "connections": windows[-1].connections,
        "seconds": round(time.monotonic() - began, 1),
        "errors": errors,
        **found,
        "grows": growing,
    }
    print(json.dumps(said, indent=1) if options.json else "\n".join(f"{name}: {value}" for name, value in said.items()))
    return int(bool(errors or growing))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
