"""Steering on the receiving device itself: an XDP program there hands each packet to a CPU (bpf/cpumap.bpf.c).

This backend is for devices whose far end is not ours and whose driver takes no filter rules. The CPU that has the
interrupt must look at each packet. A program lives as long as the device to which it is attached, so no process of ours
has to go on running.
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

QUEUE_PACKETS = 2048  # how many packets may wait for a CPU's thread; as in the kernel's sample xdp_redirect_cpu


class Cpumap:
    """Steering by XDP with a cpumap: native XDP where the driver can, else generic XDP."""

    name = "cpumap"
    modes = MODES
    remedy = NETWORKING
    needs_privilege = True

    def why_not(self, device: Device | None = None, mode: Mode = "rss") -> str | None:
        """Why this backend cannot steer at the device, or None.

        Without a device: None where this kernel loads the program. Else it raises BpfError.
        """
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
        """Switch steering on. Raises BpfError, Refused, DeviceError."""
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
        """Switch off RPS, which would steer each packet again after the XDP program."""
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
    """The loaded steering program. Raises BpfError where this kernel refuses it."""
    return SteeringProgram("cpumap", {"cpus": machine_cpus()})


def _attach_modes(device: Device) -> tuple[int, ...]:
    """The XDP modes to try on a device, the best first. A virtual device gets generic XDP only.

    The sender's end of a veth leaves checksums to the hardware. The frames of native XDP cannot say so, and TCP drops
    such packets (unless the far end has ethtool -K tx off). Generic XDP keeps the packet whole.
    """
    is_virtual = not (device.sysfs / "device").exists()
    return (libbpf.XDP_GENERIC,) if is_virtual else (libbpf.XDP_NATIVE, libbpf.XDP_GENERIC)
