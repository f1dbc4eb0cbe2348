"""A plan says what steering shall do, and leaves open how a backend does it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

Mode = Literal["rss", "atr", "perfect"]
MODES: tuple[Mode, ...] = ("rss", "atr", "perfect")
MAX_CPUS = 1024


class PlanError(ValueError):
    """A plan is impossible; the message says why."""

    exit_status = 2


@dataclass(frozen=True)
class Plan:
    """How packets find their CPU. Raises PlanError.

    mode: "rss" by hash; "atr" to the CPU that last sent on the flow; "perfect" by the slides' classification rules.
    cpus: the numbers of the CPUs that handle packets. Packets that a mode cannot place among them go by RSS.
    ports: for "perfect", packets to these ports go to these CPUs, before any other rule.
    """

    mode: Mode
    cpus: tuple[int, ...]
    ports: Mapping[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "cpus", tuple(self.cpus))
        for obstacle in self._obstacles():
            raise PlanError(obstacle)

    def _obstacles(self) -> Iterator[str]:
        if self.mode not in MODES:
            yield f"steering mode {self.mode!r}: choose from {', '.join(MODES)}"
        if not self.cpus or list(self.cpus) != sorted(set(self.cpus)):
            yield f"CPUs {list(self.cpus)}: name one or more, each once, in order"
        if any(not 0 <= cpu < MAX_CPUS for cpu in self.cpus):
            yield f"CPUs {list(self.cpus)}: they are numbered from 0 to {MAX_CPUS - 1}"
        if self.ports and self.mode != "perfect":
            yield f"rules for ports belong to the mode perfect, not to {self.mode}"
        for port, cpu in self.ports.items():
            if not 1 <= port <= 65535:
                yield f"port {port}: ports are numbered from 1 to 65535"
            if cpu not in self.cpus:
                yield f"port {port} to CPU {cpu}: that is not one of the CPUs {list(self.cpus)}"
