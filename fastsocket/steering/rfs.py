"""Receive Flow Steering, the slides' Receive-CPU-Selection: a packet goes to the CPU that last read from its socket.

Documentation/networking/scaling.rst, "RFS". It is ATR in software. The kernel learns from the application's reads, and
sends an interrupt to another CPU for each packet that arrives on the wrong one.

The whole machine has one table of sockets. Its size can be set in the first network namespace only, so RFS cannot be
switched on in a container without that namespace.
"""

from pathlib import Path

from fastsocket.steering.command import Refused
from fastsocket.steering.cpus import cpu_mask
from fastsocket.steering.device import Device
from fastsocket.steering.journal import Journal
from fastsocket.steering.plan import Mode, Plan

SOCKET_TABLE = Path("/proc/sys/net/core/rps_sock_flow_entries")
ENTRIES = 32768  # scaling.rst: enough for a moderately loaded server


class Rfs:
    """RFS on a device, and RPS to the plan's CPUs for flows that no application has read yet."""

    name = "rfs"
    modes: tuple[Mode, ...] = ("atr",)
    remedy = "run in the machine's first network namespace, not in a container, on a kernel with CONFIG_RPS"
    needs_privilege = False

    def why_not(self, device: Device | None = None, mode: Mode = "atr") -> str | None:
        """Why it cannot work here, or None."""
        if mode not in self.modes:
            return f"RFS follows the application, which is the mode atr; it cannot do {mode}"
        if not SOCKET_TABLE.exists():
            return (
                f"{SOCKET_TABLE} is not in this network namespace, only in the machine's first one (or the kernel "
                "lacks CONFIG_RPS): run it there"
            )
        return None

    def apply(self, device: Device, plan: Plan, journal: Journal) -> None:
        """Raises Refused, DeviceError."""
        queues = len(device.queue_files("rps_flow_cnt"))
        try:
            for queue in range(queues):
                journal.write_queue(device, "rps_cpus", queue, cpu_mask(plan.cpus))
                journal.write_queue(device, "rps_flow_cnt", queue, str(ENTRIES // queues))
            journal.write(SOCKET_TABLE, str(max(ENTRIES, int(SOCKET_TABLE.read_text()))))
        except OSError as error:
            raise Refused(f"cannot write {error.filename}: {error.strerror}") from error
