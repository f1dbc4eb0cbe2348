"""Steering that outlives the command that set it: what it changed is kept in a file until it is undone.

A file and not the kernel's own state, because most of what is to come back is nowhere in the kernel any more: the
masks, the indirection table, the interrupts' CPUs. It is in /run, which is emptied when those are: at boot. It belongs
to the device's network namespace and number, and to its address, so that no other device inherits it.
"""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fastsocket.steering.backends import choose
from fastsocket.steering.command import Refused
from fastsocket.steering.device import Device
from fastsocket.steering.journal import Journal
from fastsocket.steering.plan import Plan

STATE = Path("/run/fastsocket/nic")
CAP_NET_ADMIN, CAP_SYS_ADMIN, CAP_BPF = 12, 21, 39  # <linux/capability.h>


def _file(device: Device) -> Path:
    return STATE / f"{device.namespace}-{device.index}.json"


def _address(device: Device) -> str:
    return (device.sysfs / "address").read_text().strip()


def _need_capabilities() -> None:
    """Raises Refused before the kernel does, which says less and after the first half."""
    status = Path("/proc/self/status").read_text()
    held = int(status.split("CapEff:")[1].split()[0], 16)
    missing = [name for name, bits in (("CAP_NET_ADMIN", [CAP_NET_ADMIN]), ("CAP_BPF", [CAP_BPF, CAP_SYS_ADMIN]))
               if not any(held >> bit & 1 for bit in bits)]
    if missing:
        raise Refused(f"steering needs {' and '.join(missing)}: run it as root")


@contextmanager
def _locked() -> Iterator[None]:
    """One command at a time."""
    try:
        STATE.mkdir(parents=True, exist_ok=True)
        with open(STATE / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
    except PermissionError as error:
        raise Refused(f"cannot write {error.filename}: run it as root") from error


def current(device: Device) -> Journal | None:
    """What is set on the device by us; its ``about`` says what. Raises DeviceError, Refused."""
    file, address = _file(device), _address(device)
    try:
        journal = Journal.load(file)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise Refused(f"cannot read {file}: {error}; what it held must be undone by hand, then remove it") from error
    if journal.about["address"] != address:
        return None  # that device is gone, and what was set on it, too
    if journal.about["device"] != device.name:
        raise Refused(f"{device} was {journal.about['device']} when it was set up: give it back that name first")
    return journal


def turn_on(device: Device, plan: Plan, backend: str | None = None) -> None:
    """Steer so until turn_off(), in place of what we had set before; that stays where this cannot be done.

    backend: its name; None for the first that can. Raises what choose() and the backend raise, and DeviceError.
    """
    device.sysfs  # its own complaints come first
    _need_capabilities()
    with _locked():
        before = current(device)
        if before:
            before.undo()
        try:
            _apply(device, plan, backend)
        except BaseException:
            if before:
                ports = {int(port): cpu for port, cpu in before.about["ports"].items()}
                _apply(device, Plan(before.about["mode"], before.about["cpus"], ports), before.about["backend"])
            raise


def _apply(device: Device, plan: Plan, name: str | None) -> None:
    backend = choose(device, plan, name)
    journal = Journal(_file(device), device=device.name, address=_address(device), backend=backend.name,
                      mode=plan.mode, cpus=list(plan.cpus), ports={str(port): cpu for port, cpu in plan.ports.items()})
    try:
        backend.apply(device, plan, journal)
        journal.save()
    except BaseException:
        journal.undo()
        raise


def turn_off(device: Device) -> bool:
    """Undo turn_on(); False where there is nothing to undo. Raises DeviceError, Refused."""
    if current(device) is None:
        return False
    _need_capabilities()
    with _locked():
        journal = current(device)
        if journal:
            journal.undo()
    return True


def described(device: Device) -> dict[str, object]:
    """What is on, for programs and people: device, mode ("off" where we set nothing), and with what."""
    journal = current(device)
    about = {"device": device.name, "mode": "off"} if journal is None else dict(journal.about)
    about.pop("address", None)
    return about
