"""What a load generator is asked to do, and what it saw: the same for all load generators."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Demand:
    """What a load generator shall do.

    seconds: how long it loads the server. rate: requests per second in all; None: as many as the server takes. pace:
    about how many requests per second the server takes, for generators that have to be told a number of requests.
    burst: how many requests are due at the same moment, where there is a rate; 0: each has a moment of its own.
    """

    seconds: int
    rate: float | None = None
    pace: float = 0.0
    burst: int = 0


@dataclass(frozen=True)
class Load:
    """What a load generator saw.

    requests: those with the right answer, in these seconds. latency_ms: percentiles. errors: by kind. cpu_seconds: the
    generator's own CPU time. At full speed, a latency runs from sending a request to having its answer, without the
    handshake before. At a rate, it runs from the time when the request was due. histograms then has its parts, as
    HdrHistogram encodes them: connect, first_byte, whole, and the lateness of the generator itself. warmed_up: requests
    before the measured time.
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
        """All requests that the server answered, with those before the measured time."""
        return self.requests + self.warmed_up
