"""What is asked of a load generator, and what it saw, whichever it was."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Demand:
    """What a load generator is to do.

    seconds: for how long. rate: requests per second in all; None: as many as the server takes. pace: about how many
    it takes, for generators that have to be told a number of requests. burst: so many at the same moment, where a rate
    is asked for; 0: each at its own.
    """

    seconds: int
    rate: float | None = None
    pace: float = 0.0
    burst: int = 0


@dataclass(frozen=True)
class Load:
    """Requests answered as they should be, for how long, latency percentiles, errors by kind, its own CPU time.

    A latency at full speed runs from sending a request to having its answer; a handshake before it is not in it. At a
    rate it runs from when the request was due, and histograms has it in parts, as HdrHistogram encodes them: connect,
    first_byte, whole, and the lateness of the generator itself. warmed_up: requests before the time that is measured.
    """

    requests: int
    seconds: float
    latency_ms: dict[str, float]
    errors: dict[str, int]
    cpu_seconds: float
    histograms: dict[str, str] = field(default_factory=dict)
    warmed_up: int = 0

    @property
    def served(self) -> int:
        """All that the server had to work for."""
        return self.requests + self.warmed_up
