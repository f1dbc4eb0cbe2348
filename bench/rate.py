"""The rate that a trial offers. It is as many requests as the server takes, a given number, a share of base's capacity,
or a point of a compressed day: the load of a web site over 24 hours, in as many points as the run has blocks."""

from collections.abc import Mapping
from math import cos, pi
from types import MappingProxyType

from bench.capacity import key
from records.run import Options

QUIETEST_HOUR = 5
NIGHT = 0.4  # the least load, as a share of the peak, which is twelve hours after the quietest hour


def share_of_peak(hour: float) -> float:
    """The load at an hour of the day, as a share of the peak, from NIGHT to 1. It is one cosine over 24 hours."""
    return (1 + NIGHT) / 2 - (1 - NIGHT) / 2 * cos(2 * pi * (hour - QUIETEST_HOUR) / 24)


def of_latencies(options: Options, workload: str, cores: int, capacities: Mapping[str, float]) -> float | None:
    """Requests per second of the second load, from which a trial takes its latencies; None: there is no second load."""
    if options.latency_share is None or not capacities:  # without capacities, this trial measures them
        return None
    return options.latency_share * capacities[key(workload, cores)]


def offered(
    options: Options, workload: str, cores: int, block: int, capacities: Mapping[str, float] = MappingProxyType({})
) -> float | None:
    """Requests per second that a trial offers; None: as many as the server takes. capacities: Run.capacities."""
    if options.share is not None:
        return options.share * capacities[key(workload, cores)]
    if workload not in options.rates:
        return None
    return options.rates[workload] * cores * (share_of_peak(options.hour(block)) if options.day else 1)
