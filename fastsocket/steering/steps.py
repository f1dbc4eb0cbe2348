"""The changes that steering makes, each as a step: the setting before the change, and how it is put back.

A later command reads the steps from a file, as root. So a step holds numbers and known words, never a command or a
path. Each field is checked when a step is made or read. A device is known by its network namespace, number and name. If
the device is gone, its settings have gone with it.
"""

import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from fastsocket import libbpf
from fastsocket.steering import command
from fastsocket.steering.command import Refused
from fastsocket.steering.cpus import parse_cpus
from fastsocket.steering.device import NAME, Device, DeviceError
from fastsocket.steering.interrupts import affinity, interrupts_of

PROC_SYS = Path("/proc/sys")
# Settings of the whole machine: the size of Receive Flow Steering's table, and what the lab's variants switch.
SYSCTLS = ("net/core/rps_sock_flow_entries", "net/core/skb_defer_max", "net/core/busy_poll", "net/core/busy_read")
MASK, COUNT = re.compile(r"[0-9a-f]{1,8}(,[0-9a-f]{8})*"), re.compile(r"[0-9]{1,10}")
QUEUE_FILES = {"rps_cpus": MASK, "xps_cpus": MASK, "rps_flow_cnt": COUNT}
LAST = {"pid": 1 << 22, "int": (1 << 31) - 1, "u32": (1 << 32) - 1, "u64": (1 << 64) - 1}


def number(value: object, last: int, first: int = 0) -> None:
    """Raises ValueError where the value is no integer from first to last."""
    if type(value) is not int or not first <= value <= last:
        raise ValueError(f"{value!r} is no number from {first} to {last}")


def word(value: object, pattern: re.Pattern[str]) -> None:
    """Raises ValueError where the value is no string that matches the pattern as a whole."""
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise ValueError(f"{value!r} is not as {pattern.pattern}")


def one_of(value: object, *known: object) -> None:
    """Raises ValueError where the value is none of the known values."""
    if not any(type(value) is type(one) and value == one for one in known):
        raise ValueError(f"{value!r} is none of {', '.join(map(str, known))}")


class Step(Protocol):
    """One change. A journal that is kept in a file holds only steps of KINDS."""

    def undo(self) -> None: ...


@dataclass(frozen=True)
class DeviceId:
    """The device of a step. namespace: the inode of its network namespace. process: a process that was in there."""

    name: str
    process: int | None
    index: int
    namespace: int

    def __post_init__(self) -> None:
        word(self.name, NAME)
        number(self.index, LAST["int"], 1)
        number(self.namespace, LAST["u64"])
        if self.process is not None:
            number(self.process, LAST["pid"], 1)

    @classmethod
    def of(cls, device: Device) -> "DeviceId":
        return cls(device.name, device.process, device.index, device.namespace)

    def find(self) -> Device | None:
        """The device, or None if it is gone.

        The number of the process may be used again, so the network namespace and the device's number are compared.
        """
        device = Device(self.name, self.process)
        try:
            return device if (device.namespace, device.index) == (self.namespace, self.index) else None
        except (OSError, DeviceError):
            return None


def _put_back(path: Path, before: str) -> None:
    """Write an old value back, only where the file's value differs. Raises Refused.

    A setting that could not be changed before can often not be written now either.
    """
    try:
        if path.exists() and path.read_text().strip() != before:
            path.write_text(before)
    except OSError as error:
        raise Refused(f"cannot write {path}: {error.strerror}") from error


@dataclass(frozen=True)
class Sysctl:
    """A setting below /proc/sys that was changed."""

    name: str
    before: str

    def __post_init__(self) -> None:
        one_of(self.name, *SYSCTLS)
        word(self.before, COUNT)

    def undo(self) -> None:
        _put_back(PROC_SYS / self.name, self.before)


@dataclass(frozen=True)
class QueueFile:
    """A setting of a device's queue in sysfs that was changed."""

    device: DeviceId
    file: str
    queue: int
    before: str

    def __post_init__(self) -> None:
        one_of(self.file, *QUEUE_FILES)
        number(self.queue, 65535)
        word(self.before, QUEUE_FILES[self.file])

    def undo(self) -> None:
        device = self.device.find()
        files = device.queue_files(self.file) if device else []
        if self.queue < len(files):
            _put_back(files[self.queue], self.before)


@dataclass(frozen=True)
class InterruptMoved:
    """An interrupt of a device that was given to a CPU. before: the CPUs that could get it."""

    device: DeviceId
    interrupt: int
    before: str

    def __post_init__(self) -> None:
        number(self.interrupt, LAST["int"])
        parse_cpus(self.before if isinstance(self.before, str) else "")

    def undo(self) -> None:
        device = self.device.find()
        if device and self.interrupt in interrupts_of(device):
            _put_back(affinity(self.interrupt), self.before)


@dataclass(frozen=True)
class EgressFilter:
    """Our tc filter at a device's egress. made_hook: we have made the clsact qdisc, too."""

    device: DeviceId
    handle: int
    program_id: int
    made_hook: bool

    def __post_init__(self) -> None:
        number(self.handle, LAST["u32"], 1)
        number(self.program_id, LAST["u32"], 1)
        one_of(self.made_hook, True, False)

    def undo(self) -> None:
        device = self.device.find()
        if not device:
            return
        with device.inside():
            libbpf.detach_egress(self.device.index, self.handle, self.program_id)
            if self.made_hook and not _has_filters(device.name):
                libbpf.destroy_clsact(self.device.index)


def _has_filters(device: str) -> bool:
    """Whether a device still has tc filters. They are somebody else's, and would go with our clsact qdisc."""
    shown = [
        subprocess.run(["tc", "filter", "show", "dev", device, direction], capture_output=True).stdout
        for direction in ("ingress", "egress")
    ]
    return any(shown)


@dataclass(frozen=True)
class XdpAttached:
    """Our XDP program on a device. flags: the mode in which it was attached."""

    device: DeviceId
    program_id: int
    flags: int

    def __post_init__(self) -> None:
        number(self.program_id, LAST["u32"], 1)
        one_of(self.flags, libbpf.XDP_GENERIC, libbpf.XDP_NATIVE)

    def undo(self) -> None:
        device = self.device.find()
        if not device:
            return
        with device.inside():
            if libbpf.xdp_program_id(self.device.index) == self.program_id:
                libbpf.detach_xdp(self.device.index, self.flags)


@dataclass(frozen=True)
class IndirectionSet:
    """A NIC's old indirection table: count queues in turn, from first on. count 0: the driver's default table."""

    device: DeviceId
    first: int
    count: int

    def __post_init__(self) -> None:
        number(self.first, 65535)
        number(self.count, 65535)

    def undo(self) -> None:
        back = ["start", str(self.first), "equal", str(self.count)] if self.count else ["default"]
        _ethtool(self.device, "-X", *back)


@dataclass(frozen=True)
class NtupleSet:
    """Whether a NIC looked at its filter rules before: "on" or "off"."""

    device: DeviceId
    before: str

    def __post_init__(self) -> None:
        one_of(self.before, "on", "off")

    def undo(self) -> None:
        _ethtool(self.device, "-K", "ntuple", self.before)


@dataclass(frozen=True)
class RuleAdded:
    """A filter rule that was added to a NIC, known by its location."""

    device: DeviceId
    location: int

    def __post_init__(self) -> None:
        number(self.location, LAST["u32"])

    def undo(self) -> None:
        _ethtool(self.device, "-N", "delete", str(self.location))


def _ethtool(where: DeviceId, option: str, *words: str) -> None:
    device = where.find()
    if device:
        with device.inside():
            command.run(["ethtool", option, device.name, *words])


KINDS: dict[str, Callable[..., Step]] = {
    kind.__name__: kind
    for kind in (Sysctl, QueueFile, InterruptMoved, EgressFilter, XdpAttached, IndirectionSet, NtupleSet, RuleAdded)
}


def step(kept: object) -> Step:
    """The step of KINDS that a file holds as JSON. Raises ValueError."""
    if not isinstance(kept, dict) or not isinstance(kept.get("kind"), str) or kept["kind"] not in KINDS:
        raise ValueError("its kind is unknown")
    fields = {name: value for name, value in kept.items() if name != "kind"}
    try:
        if "device" in fields:
            fields["device"] = DeviceId(**fields["device"])
        return KINDS[kept["kind"]](**fields)
    except TypeError as error:
        raise ValueError("its fields are not those of its kind") from error
