"""What a load generator saw, whichever it was."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Load:
    """Requests answered as they should be, for how long, latency percentiles, errors by kind, its own CPU time.

    A latency runs from sending a request to having its answer; a handshake before it is not in it.
    """

    requests: int
    seconds: float
    latency_ms: dict[str, float]
    errors: dict[str, int]
    cpu_seconds: float
