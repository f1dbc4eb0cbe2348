"""The lab's load generator. It plans beforehand when each request is due (an open loop).

A latency runs from the time when the request was due, so a server that stalls is charged for every request that waited
(Tene: How NOT to Measure Latency). The generator is a C program beside this file. It stands for clients on other
machines, so it runs as soon as a request is due, before the server. It checks itself: where it sent requests late, or
at intervals that do not fit the arrival process that was asked for, there is no result (as in Lancet, ATC 2019).
"""

import json
import math
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hdrh.histogram import HdrHistogram

from fastsocket.build import make
from topologies.testbed import Testbed
from workloads import limits
from workloads.load import Demand, Load
from workloads.process import WorkloadError, finish, running
from workloads.workload import Cpus

HERE = Path(__file__).resolve().parent
PROGRAM = HERE / "build" / "generator"
WARM_UP_SECONDS = 0.2
PERCENTILES = ("50", "90", "95", "99", "99.9", "99.99")
LONGEST_NS = 2**37
DIGITS = 3  # a histogram keeps so many digits of a latency
LATE_MS = 2.0  # how late requests may be at the 99th percentile, for each second that an answer may take
BEGIN_MS = 0.1  # how long a thread may take for each request of a burst
SURE = 1.95  # the bound of the Kolmogorov-Smirnov test: a right generator fails once in a thousand trials


@dataclass(frozen=True)
class Dialogue:
    """A request, and how its answer begins and ends.

    connections: how many stay open on each CPU of the load. 0: each request has a connection of its own, which the
    server closes.
    """

    request: str
    begins: str
    ends: str
    connections: int = 0


def build() -> None:
    """Bring the generator up to date. Raises fastsocket.build.BuildError."""
    make(HERE, "build/generator")


def as_demanded(testbed: Testbed, cpus: Cpus, demand: Demand, ports: range, dialogue: Dialogue) -> Load:
    """Run an open loop where a rate is asked for, else a closed loop. Raises WorkloadError."""
    if demand.rate:
        return open_loop(testbed, cpus, demand, ports, dialogue)
    return closed_loop(testbed, cpus, demand.seconds, ports, dialogue)


def open_loop(testbed: Testbed, cpus: Cpus, demand: Demand, ports: range, dialogue: Dialogue) -> Load:
    """Load the testbed's server from the client host at a rate, with a thread on each CPU of the load.

    Raises WorkloadError when the generator fails, or could not keep to its schedule.
    """
    how = ["--rate", str(demand.rate), "--seconds", str(demand.seconds + WARM_UP_SECONDS)]
    how += ["--burst", str(demand.burst)] if demand.burst else []
    return _run(testbed, cpus, demand.seconds, ports, dialogue, how, BEGIN_MS * demand.burst / len(cpus.load))


def closed_loop(testbed: Testbed, cpus: Cpus, seconds: int, ports: range, dialogue: Dialogue) -> Load:
    """Send as many requests as the server takes. Each connection waits for an answer before its next request.

    Where the dialogue keeps no connections open, there are as many at a time for each of the server's CPUs as wrk has.
    Raises WorkloadError.
    """
    each = dialogue.connections or max(1, limits.read().connections_per_core * len(cpus.server) // len(cpus.load))
    how = ["--always", str(each), "--seconds", str(seconds + WARM_UP_SECONDS)]
    return _run(testbed, cpus, seconds, ports, dialogue, how)


def _run(
    testbed: Testbed,
    cpus: Cpus,
    seconds: int,
    ports: range,
    dialogue: Dialogue,
    how: list[str],
    more_late_ms: float = 0.0,
) -> Load:
    command = [
        testbed.client.deploy(PROGRAM),
        *("--server", f"{testbed.server.IP()}:{ports.start}+{len(ports) - 1}"),
        *("--cpus", ",".join(map(str, cpus.load))),
        *("--request", _escaped(dialogue.request)),
        *("--begins", _escaped(dialogue.begins)),
        *("--ends", _escaped(dialogue.ends)),
        *("--warm-up", str(WARM_UP_SECONDS)),
        *("--patience", str(limits.read().answer_seconds)),
        *(["--persistent", str(dialogue.connections)] if dialogue.connections else []),
        *how,
    ]
    placed = testbed.command(testbed.client, cpus.load, command)
    with running(placed, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        result = json.loads(finish(process, "the load generator", seconds))
    return read(result, late_ms=LATE_MS * limits.read().answer_seconds + more_late_ms)


def read(result: dict[str, Any], late_ms: float) -> Load:
    """The load from the generator's result. Raises WorkloadError where the generator could not keep to its schedule."""
    lateness = histogram(result["lateness_ns"])
    late = lateness.get_value_at_percentile(99) / 1e6
    remedy = "" if result["real_time"] else "; let it run at real-time priority (CAP_SYS_NICE)"
    if late > late_ms:
        raise WorkloadError(
            f"the load generator could not keep to its schedule: it was up to {late:.1f} ms late{remedy}"
        )
    if result["distance"] > SURE / math.sqrt(max(result["intervals"], 1)):
        raise WorkloadError(f"the load generator could not send at the intervals that were asked for{remedy}")
    parts = {name.removesuffix("_ns"): histogram(counts) for name, counts in result.items() if name.endswith("_ns")}
    return Load(
        requests=result["requests"],
        warmed_up=result["warmed_up"],
        seconds=result["seconds"],
        latency_ms=percentiles(parts["whole"]),
        errors=result["errors"],
        cpu_seconds=result["cpu_seconds"],
        histograms={name: part.encode().decode() for name, part in parts.items()},
    )


def histogram(counts: list[tuple[int, int]]) -> HdrHistogram:
    """A histogram of pairs: a value in ns, and how often it came."""
    made = HdrHistogram(1, LONGEST_NS, DIGITS)
    for value, count in counts:
        made.record_value(value, count)
    return made


def percentiles(latencies: HdrHistogram) -> dict[str, float]:
    """The percentiles of latencies in ms, and the largest latency as "max"; empty where nothing was answered."""
    if not latencies.get_total_count():
        return {}
    shown = {percent: latencies.get_value_at_percentile(float(percent)) / 1e6 for percent in PERCENTILES}
    return shown | {"max": latencies.get_max_value() / 1e6}


def _escaped(text: str) -> str:
    """A text with its special characters escaped, as the generator reads it."""
    return text.replace("\\", "\\\\").replace("\r", "\\r").replace("\n", "\\n").replace("\0", "\\0")
