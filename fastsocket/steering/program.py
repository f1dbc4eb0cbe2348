"""The packet classification that the BPF programs share (bpf/steering.h): its tables, and how it is loaded."""

import struct
from collections.abc import Mapping

from fastsocket.build import bpf_object
from fastsocket.libbpf import BpfObject, attach_egress, program_id
from fastsocket.steering.cpus import machine_cpus
from fastsocket.steering.device import Device
from fastsocket.steering.journal import Journal
from fastsocket.steering.plan import MAX_CPUS, MODES, Plan
from fastsocket.steering.ports import port_mask
from fastsocket.steering.rss import INDIRECTION_ENTRIES, contributions, indirection
from fastsocket.steering.steps import DeviceId, EgressFilter

NETWORKING = "boot Linux 6.1 or later with CONFIG_NET_CLS_BPF and CONFIG_BPF_SYSCALL, as Debian's are"  # a remedy
LEARNED_ENTRIES = 8192
OWN_NETNS = -1
STEER, LEARN = 1, 2  # handles of the tc filters: a device has both where each end of its link has an emulated NIC
_HEAD = struct.Struct("=4IiI")
_PORTS = 65536
IDLE = _HEAD.pack(0, 1, 0, 0, OWN_NETNS, 0) + bytes(4 * INDIRECTION_ENTRIES + 2 * MAX_CPUS + 2 * _PORTS)


def settings(plan: Plan, netns: int = OWN_NETNS, cpus: int | None = None, by_queue: bool = False) -> bytes:
    """The variables of the BPF program as bytes, in their order in steering.h.

    netns: the network namespace whose listeners count, by its id in the program's network namespace. cpus: the number
    of the machine's CPUs. by_queue: queue i of the receiver stands for the i-th CPU of the plan.
    """
    count = cpus or machine_cpus()
    positions = {cpu: position for position, cpu in enumerate(plan.cpus, start=1)}
    return (
        _HEAD.pack(MODES.index(plan.mode), len(plan.cpus), count, port_mask(count), netns, by_queue)
        + struct.pack(f"={INDIRECTION_ENTRIES}I", *indirection(plan.cpus))
        + struct.pack(f"={MAX_CPUS}H", *(positions.get(cpu, 0) for cpu in range(MAX_CPUS)))
        + struct.pack(f"={_PORTS}H", *(plan.ports.get(port, -1) + 1 for port in range(_PORTS)))
    )


class SteeringProgram(BpfObject):
    """A loaded BPF object with the shared classification. It does not steer before set(). Raises BpfError."""

    def __init__(self, name: str, resized: Mapping[str, int] | None = None):
        """resized: how many elements to give maps whose size depends on the machine, by the map's name."""
        super().__init__(bpf_object(name))
        self.settings = IDLE
        try:
            table = b"".join(struct.pack("=256I", *row) for row in contributions())
            self.initial_value(".rodata", len(table))[:] = list(table)
            for map_name, entries in (resized or {}).items():
                self.resize(map_name, entries)
            self.load()
        except BaseException:
            self.close()
            raise

    def set(self, value: bytes) -> None:
        """Steer by these settings from now on. ATR forgets what it has learned, as in a NIC that changes its mode."""
        self.write(".bss", bytes(8 * LEARNED_ENTRIES))
        self.write(".data", value)
        self.settings = value

    def attach_egress(self, name: str, device: Device, handle: int, journal: Journal) -> None:
        """Attach a tc program at a device's egress, and note it in the journal. Raises BpfError, DeviceError."""

        def note(made_hook: bool) -> None:
            journal.note(EgressFilter(DeviceId.of(device), handle, program_id(descriptor), made_hook))

        index, descriptor = device.index, self.descriptor(name)
        with device.inside():
            attach_egress(descriptor, index, handle, note)
