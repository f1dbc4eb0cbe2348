"""The ways to steer on a device of one's own, and choosing among them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from fastsocket.steering.command import Refused
from fastsocket.steering.cpumap import Cpumap
from fastsocket.steering.device import Device
from fastsocket.steering.ethtool import Ethtool
from fastsocket.steering.journal import Journal
from fastsocket.steering.plan import Mode, Plan, PlanError
from fastsocket.steering.rfs import Rfs


class Backend(Protocol):
    """One way to steer. EmulatedNic is one, too, for the links that it was given."""

    name: str
    modes: tuple[Mode, ...]

    def why_not(self, device: Device | None = None, mode: Mode = "rss") -> str | None:
        """Why it cannot work for the device (None: on this machine at all); None where it can."""

    def apply(self, device: Device, plan: Plan, journal: Journal) -> None:
        """Switch it on, noting each change. Raises what has an exit_status; what was noted is then to be undone."""


BACKENDS: tuple[Backend, ...] = (Ethtool(), Cpumap(), Rfs())  # the best first: what the NIC does costs no CPU


def choose(device: Device, plan: Plan, name: str | None = None) -> Backend:
    """The backend of this name, else the first that can. Raises PlanError for a name that is none, Refused with each
    one's reason."""
    named = [backend for backend in BACKENDS if name in (None, backend.name)]
    if not named:
        raise PlanError(f"backend {name!r}: choose from {', '.join(backend.name for backend in BACKENDS)}")
    reasons = []
    for backend in named:
        reason = backend.why_not(device, plan.mode)
        if reason is None:
            return backend
        reasons.append(f"{backend.name}: {reason}")
    raise Refused("; ".join(reasons))


@contextmanager
def steer(backend: Backend, device: Device, plan: Plan) -> Iterator[None]:
    """Steer so; afterwards the device is as before, also where the backend refused halfway."""
    with Journal() as journal:
        backend.apply(device, plan, journal)
        yield
