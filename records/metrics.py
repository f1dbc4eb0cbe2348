"""The metrics of a trial: name, unit, heading, direction and precision of each, in one place."""

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Metric:
    """A number that a trial measures."""

    name: str  # the key in Trial.metrics, and the name in summary.csv
    unit: str
    heading: str  # the column's heading in tables
    digits: int  # decimals in tables
    better: Literal["higher", "lower"]
    timed: bool = True  # whether it depends on time, so that an emulated guest cannot tell it
    words: str = ""  # the name in sentences, where the heading does not fit; empty: the heading fits

    @property
    def called(self) -> str:
        """The name of the metric in sentences."""
        return self.words or self.heading

    @property
    def largest(self) -> float:
        """The largest possible value: 100 for percentages, else infinity. The smallest one is 0."""
        return 100.0 if self.unit == "%" else math.inf


THROUGHPUT = ("cps", "rps")  # connections per second or, for connections that persist, requests per second
P50, P99, P999, MAX = "latency_p50_ms", "latency_p99_ms", "latency_p999_ms", "latency_max_ms"
COST = "cpu_us_per_request"  # CPU time of all the trial's CPUs, less the load generator's own
SERVER_COST = "server_cpu_us_per_request"  # CPU time of the server's processes and of the threads of its emulated NIC
INTERRUPTS = "interrupts_per_request"  # inter-processor interrupts (to wake or call another CPU) of the whole machine
PACKETS_IN, PACKETS_OUT = "packets_in_per_request", "packets_out_per_request"  # to and from the server, at its links
CALLS = "calls_per_request"  # system calls in the server's network namespace
SWITCHES = "switches_per_request"  # context switches to one of the server's threads
COSTS = (SERVER_COST, COST)
PASSIVE_LOCAL, ACCEPT_LOCAL, ACTIVE_LOCAL = "passive_local_percent", "accept_local_percent", "active_local_percent"
UNEVENNESS = "busiest_core_over_mean"  # reads of clients' requests; 1: evenly spread; the number of cores: all on one
CONTENTIONS = "contentions_per_connection"
CONNECT_P50, CONNECT_P90 = "connect_p50_us", "connect_p90_us"  # time that connect() takes, until its SYN is sent
ERRORS = "errors"
_LOCAL = "reads on the packet's own core"

METRICS = {
    metric.name: metric
    for metric in (
        Metric("cps", "1/s", "CPS", 0, "higher"),
        Metric("rps", "1/s", "RPS", 0, "higher"),
        Metric(P50, "ms", "p50, ms", 2, "lower", words="median latency"),
        Metric(P99, "ms", "p99, ms", 2, "lower", words="99th percentile of the latency"),
        Metric(P999, "ms", "p99.9, ms", 2, "lower", words="99.9th percentile of the latency"),
        Metric(MAX, "ms", "longest, ms", 2, "lower", words="longest latency"),
        Metric(PASSIVE_LOCAL, "%", "passive local, %", 1, "higher", False, f"{_LOCAL}, of clients' connections"),
        Metric(ACCEPT_LOCAL, "%", "accept local, %", 1, "higher", False, "accepts on the packet's own core"),
        Metric(ACTIVE_LOCAL, "%", "active local, %", 1, "higher", False, f"{_LOCAL}, of the server's own connections"),
        Metric(UNEVENNESS, "1", "requests of the busiest core over the mean core's", 2, "lower", False),
        Metric(
            COST,
            "µs",
            "CPU µs per request, all but the load generator",
            1,
            "lower",
            words="CPU time per request of all but the load generator",
        ),
        Metric(
            SERVER_COST,
            "µs",
            "CPU µs per request, server and its NIC",
            1,
            "lower",
            words="CPU time per request of the server itself",
        ),
        Metric(INTERRUPTS, "1", "interrupts between CPUs per request", 2, "lower"),
        Metric(PACKETS_IN, "1", "packets to the server per request", 2, "lower", False),
        Metric(PACKETS_OUT, "1", "packets from the server per request", 2, "lower", False),
        Metric(CALLS, "1", "system calls of the server per request", 2, "lower"),
        Metric(SWITCHES, "1", "context switches of the server per request", 2, "lower"),
        Metric(CONTENTIONS, "1", "contentions per connection", 3, "lower"),
        Metric(CONNECT_P50, "µs", "connect(), p50, µs", 1, "lower"),
        Metric(CONNECT_P90, "µs", "connect(), p90, µs", 1, "lower"),
        Metric(ERRORS, "1", "errors per trial", 1, "lower", False),
    )
}
TABULATED = (
    P50,
    P99,
    PASSIVE_LOCAL,
    ACCEPT_LOCAL,
    COST,
    SERVER_COST,
    INTERRUPTS,
    CONTENTIONS,
    ERRORS,
)  # the metrics that tables show beside the throughput
