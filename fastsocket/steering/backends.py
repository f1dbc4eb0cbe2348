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
    remedy: str  # what to do on a machine where it cannot work
    needs_privilege: bool  # to find out whether it can work

    def why_not(self, device: Device | None = None, mode: Mode = "rss") -> str | None:
        """Why it cannot work for the device (None: on this machine at all); None where it can.

        Without a device it may raise BpfError, which tells the cause.
        """

    def apply(self, device: Device, plan: Plan, journal: Journal) -> None:
        """Switch it on, noting each change. Raises what has an exit_status; what was noted is then to be undone."""


BACKENDS: tuple[Backend, ...] = (Ethtool(), Cpumap(), Rfs())  # the best first: what the NIC does costs no CPU


def able(device: Device, plan: Plan, name: str | None = None) -> list[Backend]:
    """The backends that can do the plan's mode on the device, the best first; of this name alone, where one is given.

    Raises PlanError for a name that is none, and Refused with each one's reason where none can.
    """
    named = [backend for backend in BACKENDS if name in (None, backend.name)]
    if not named:
        raise PlanError(f"backend {name!r}: choose from {', '.join(backend.name for backend in BACKENDS)}")
    reasons = {backend: backend.why_not(device, plan.mode) for backend in named}
    found = [backend for backend, reason in reasons.items() if reason is None]
    if not found:
        raise Refused("; ".join(f"{backend.name}: {reason}" for backend, reason in reasons.items()))
    return found


@contextmanager
def steer(backend: Backend, device: Device, plan: Plan) -> Iterator[None]:
    """Steer so; afterwards the device is as before, also where the backend refused halfway."""
    with Journal() as journal:
        backend.apply(device, plan, journal)
        yield
