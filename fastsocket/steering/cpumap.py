"""Steering on the receiving device itself: an XDP program there hands each packet to a CPU (bpf/cpumap.bpf.c).

For devices whose far end is not ours and whose driver takes no filter rules. It costs the CPU that has the interrupt a
look at each packet. Programs attached to a device live as long as it, so nothing of ours has to go on running.
"""

import struct

from fastsocket import libbpf
from fastsocket.libbpf import BpfError
from fastsocket.steering.command import Refused
from fastsocket.steering.cpus import machine_cpus
from fastsocket.steering.device import Device
from fastsocket.steering.journal import Journal
from fastsocket.steering.plan import MODES, Mode, Plan
from fastsocket.steering.program import LEARN, NETWORKING, SteeringProgram, settings
from fastsocket.steering.steps import DeviceId, XdpAttached

QUEUE_PACKETS = 2048  # that wait for a CPU's thread; as in the kernel's sample xdp_redirect_cpu


class Cpumap:
    """XDP with a cpumap: native where the driver can, else generic."""

    name = "cpumap"
    modes = MODES
    remedy = NETWORKING
    needs_privilege = True

    def why_not(self, device: Device | None = None, mode: Mode = "rss") -> str | None:
        """Why it cannot work here, or None. Without a device: whether this kernel loads the program, else BpfError."""
        if device is None:
            loaded().close()
            return None
        try:
            index = device.index
            with device.inside():
                there = libbpf.xdp_program_id(index)
        except BpfError as error:
            return error.reason
        return f"{device} has an XDP program already (id {there}): ip link set {device} xdp off" if there else None

    def apply(self, device: Device, plan: Plan, journal: Journal) -> None:
        """Raises BpfError, Refused, DeviceError."""
        with loaded() as program:
            for cpu in plan.cpus:
                program.write("cpus", struct.pack("=Ii", QUEUE_PACKETS, 0), cpu)
            program.set(settings(plan))
            if plan.mode == "atr":
                program.attach_egress("learn", device, LEARN, journal)
            self._without_rps(device, journal)
            self._attach(program, device, journal)

    @staticmethod
    def _without_rps(device: Device, journal: Journal) -> None:
        """RPS would steer once more, after us."""
        try:
            for number, queue in enumerate(device.queue_files("rps_cpus")):
                if queue.read_text().strip("0,\n"):
                    journal.write_queue(device, "rps_cpus", number, "0")
        except OSError as error:
            raise Refused(f"cannot write {error.filename}: {error.strerror}") from error

    @staticmethod
    def _attach(program: SteeringProgram, device: Device, journal: Journal) -> None:
        descriptor, index = program.descriptor("fastsocket_nic"), device.index
        identity, refusal = libbpf.program_id(descriptor), None
        for flags in _attach_modes(device):
            journal.note(XdpAttached(DeviceId.of(device), identity, flags))
            try:
                with device.inside():
                    libbpf.attach_xdp(descriptor, index, flags)
                return
            except BpfError as error:
                refusal = refusal or error
        raise Refused(f"{device}: {refusal}") from refusal


def loaded() -> SteeringProgram:
    """Raises BpfError where this kernel refuses it."""
    return SteeringProgram("cpumap", {"cpus": machine_cpus()})


def _attach_modes(device: Device) -> tuple[int, ...]:
    """The best first. On a veth arrive packets whose checksum the far end left to the hardware; native XDP's frames
    cannot say so, and TCP drops them (unless the far end has ethtool -K tx off); generic XDP keeps the packet whole."""
    is_virtual = not (device.sysfs / "device").exists()
    return (libbpf.XDP_GENERIC,) if is_virtual else (libbpf.XDP_NATIVE, libbpf.XDP_GENERIC)
