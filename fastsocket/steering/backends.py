"""The list of steering backends, and the choice of one for a device."""

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
    """One way to steer. EmulatedNic works alike, at the links that it was given."""

    name: str
    modes: tuple[Mode, ...]
    remedy: str  # what to do on a machine where this backend cannot work
    needs_privilege: bool  # True: finding out whether the backend can work takes privileges

    def why_not(self, device: Device | None = None, mode: Mode = "rss") -> str | None:
        """Why the backend cannot steer at the device in this mode; None where it can.

        Without a device: why it cannot work on this machine at all. Then it may raise BpfError, which tells the cause.
        """

    def apply(self, device: Device, plan: Plan, journal: Journal) -> None:
        """Switch steering on, and note each change in the journal.

        Raises exceptions with an exit_status; the caller then undoes the changes that were noted.
        """


BACKENDS: tuple[Backend, ...] = (Ethtool(), Cpumap(), Rfs())  # the best first: what the NIC does costs no CPU


def able(device: Device, plan: Plan, name: str | None = None) -> list[Backend]:
    """The backends that can do the plan's mode on the device, the best first. name: ask only the backend of this name.

    Raises PlanError for an unknown name, and Refused with each backend's reason where none can.
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
    """Steer during the with block. Afterwards the device is as before, also where the backend refused halfway."""
    with Journal() as journal:
        backend.apply(device, plan, journal)
        yield
