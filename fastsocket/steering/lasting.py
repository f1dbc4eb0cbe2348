"""Steering that outlives the command that set it: a file keeps the changes until they are undone.

A file is needed because the kernel does not keep most of the old settings: the masks, the indirection table, the
interrupts' CPUs. The file is in /run, which is emptied at boot, when the settings are lost, too. The file belongs to a
device's network namespace, number and hardware address, so that no other device inherits it.
"""

import fcntl
import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from fastsocket.libbpf import BpfError
from fastsocket.steering import private
from fastsocket.steering.backends import BACKENDS, able
from fastsocket.steering.command import Refused
from fastsocket.steering.device import NAME, Device, DeviceError
from fastsocket.steering.journal import REMEDY, Journal, JournalError
from fastsocket.steering.plan import MAX_CPUS, Mode, Plan
from fastsocket.steering.steps import number, one_of, word

STATE = Path("/run/fastsocket/nic")
LOCK_SECONDS = 5  # longer than one command takes, and short for a person
HARDWARE_ADDRESS = re.compile(r"([0-9a-f]{2}(:[0-9a-f]{2})*)?")
CAP_NET_ADMIN, CAP_SYS_ADMIN, CAP_BPF = 12, 21, 39  # <linux/capability.h>


def _file(device: Device) -> Path:
    return STATE / f"{device.namespace}-{device.index}.json"


def _address(device: Device) -> str:
    try:
        return (device.sysfs / "address").read_text().strip()
    except OSError as error:
        raise DeviceError(f"{device} has gone meanwhile") from error


def _need_capabilities() -> None:
    """Raises Refused where privileges are missing. The kernel would refuse halfway, and would say less."""
    status = Path("/proc/self/status").read_text()
    held = int(status.split("CapEff:")[1].split()[0], 16)
    missing = [
        name
        for name, bits in (("CAP_NET_ADMIN", [CAP_NET_ADMIN]), ("CAP_BPF", [CAP_BPF, CAP_SYS_ADMIN]))
        if not any(held >> bit & 1 for bit in bits)
    ]
    if missing:
        raise Refused(f"steering needs {' and '.join(missing)}: run it as root")


@contextmanager
def _locked() -> Iterator[None]:
    """Let only one command run at a time. Raises Refused when another command does not end within LOCK_SECONDS."""
    path = STATE / "lock"
    with private.directory(STATE, make=True) as parent, private.opened(path, os.O_RDWR | os.O_CREAT, parent) as lock:
        os.fchmod(lock, private.FILE)
        try:
            with _at_most(LOCK_SECONDS):
                fcntl.flock(lock, fcntl.LOCK_EX)
        except TimeoutError:
            raise Refused(
                f"{_holder(lock)} holds {path} for more than {LOCK_SECONDS} s: wait for it, or end it"
            ) from None
        yield


@contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    """Raises TimeoutError out of a call that waits for longer. Works in the main thread only: it uses a signal."""

    def late(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _holder(lock: int) -> str:
    """The process that has a lock on a file, in words (proc(5), /proc/locks)."""
    status = os.fstat(lock)
    ours = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    for line in Path("/proc/locks").read_text().splitlines():
        _, *blocked, kind, _, _, pid, file, _, _ = line.split()
        if (blocked, kind, file) == ([], "FLOCK", ours):
            return f"process {pid}"
    return "a process that is not seen from here"


@dataclass(frozen=True)
class _About:
    """The head of a journal: the device, and the steering that was asked for.

    Somebody else may have written the journal, so each field is checked.
    """

    device: str
    address: str
    backend: str
    mode: str
    cpus: list[int]
    ports: dict[str, int]

    def __post_init__(self) -> None:
        """Check all fields. Raises ValueError, TypeError."""
        word(self.device, NAME)
        word(self.address, HARDWARE_ADDRESS)
        one_of(self.backend, *(backend.name for backend in BACKENDS))
        for cpu in (*self.cpus, *self.ports.values()):
            number(cpu, MAX_CPUS - 1)
        for port in self.ports:
            word(port, re.compile("[0-9]{1,5}"))
        _ = self.plan  # making the plan checks the rest

    @property
    def plan(self) -> Plan:
        return Plan(cast("Mode", self.mode), tuple(self.cpus), {int(port): cpu for port, cpu in self.ports.items()})


def _about(journal: Journal, file: Path) -> _About:
    try:
        return _About(**journal.about)
    except (ValueError, TypeError, AttributeError) as error:
        raise JournalError(f"{file} is no journal of a device: {error}; {REMEDY}") from error


def current(device: Device) -> Journal | None:
    """The journal of what we have set on the device; None where that is nothing. Its ``about`` describes the steering.

    Raises DeviceError, Refused, JournalError.
    """
    file, address = _file(device), _address(device)
    try:
        with private.directory(STATE.parent):
            journal = Journal.load(file)
    except FileNotFoundError:
        return None
    about = _about(journal, file)
    if about.address != address:
        return None  # the journal's device is gone, and what was set on it, too
    if about.device != device.name:
        raise Refused(f"{device} was {about.device} when it was set up: give it back that name first")
    return journal


def turn_on(device: Device, plan: Plan, backend: str | None = None) -> None:
    """Steer by a plan until turn_off(). It replaces what we had set before, which comes back where the plan fails.

    backend: the backend's name; None for the first that can. Raises what able() and the backend raise, and DeviceError.
    """
    _ = device.sysfs  # raises its own errors before anything else does
    _need_capabilities()
    with _locked():
        before = current(device)
        if before:
            before.undo()
        try:
            _apply_best(device, plan, backend)
        except BaseException:
            if before:
                about = _about(before, _file(device))
                _apply(device, about.plan, about.backend)
            raise


def _apply_best(device: Device, plan: Plan, name: str | None) -> None:
    """Steer by the first backend that can. A backend that is refused halfway is undone, and the next one is tried."""
    *better, last = able(device, plan, name)
    for backend in better:
        try:
            _apply(device, plan, backend.name)
        except (Refused, BpfError):
            continue
        return
    _apply(device, plan, last.name)


def _apply(device: Device, plan: Plan, name: str) -> None:
    backend = next(backend for backend in BACKENDS if backend.name == name)
    journal = Journal(
        _file(device),
        device=device.name,
        address=_address(device),
        backend=name,
        mode=plan.mode,
        cpus=list(plan.cpus),
        ports={str(port): cpu for port, cpu in plan.ports.items()},
    )
    try:
        backend.apply(device, plan, journal)
        journal.save()
    except BaseException:
        journal.undo()
        raise


def turn_off(device: Device) -> bool:
    """Undo turn_on(). False: there is nothing to undo. Raises DeviceError, Refused, JournalError."""
    if current(device) is None:
        return False
    _need_capabilities()
    with _locked():
        journal = current(device)
        if journal:
            journal.undo()
    return True


def described(device: Device) -> dict[str, object]:
    """The present steering, for programs and people: device, mode ("off" where we set nothing), and the plan's rest."""
    journal = current(device)
    about: dict[str, object] = {"device": device.name, "mode": "off"} if journal is None else dict(journal.about)
    about.pop("address", None)
    return about
