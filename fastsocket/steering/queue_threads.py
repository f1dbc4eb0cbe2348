"""The kernel threads that take in a veth's packets, one for each of its receive queues.

This is threaded NAPI (Linux 5.12, commit 29863d41bb6e). A veth has NAPI while generic receive offload is on (Linux
5.13, commit d3256efd8e8b). The sender then pays for no softirq of the receiver, and for an interrupt only where the
thread sleeps. The CPU time of the threads is what the receiver's NIC and its softirq cost.
"""

import os
from pathlib import Path

from pyroute2.netlink import NLM_F_DUMP, NLM_F_REQUEST, genlmsg
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.generic import GenericNetlinkSocket

from fastsocket.steering.command import Refused, run
from fastsocket.steering.device import Device

NAPI_GET = 11  # NETDEV_CMD_NAPI_GET in <linux/netdev.h>
NEEDS = "Linux 6.8 or later (commit 8481a249a0ea), outside of containers that hide the kernel's threads"


class _Napi(genlmsg):  # type: ignore[misc]
    """Documentation/netlink/specs/netdev.yaml, napi."""

    nla_map = (
        ("NETDEV_A_NAPI_PAD", "none"),
        ("NETDEV_A_NAPI_IFINDEX", "uint32"),
        ("NETDEV_A_NAPI_ID", "uint32"),
        ("NETDEV_A_NAPI_IRQ", "uint32"),
        ("NETDEV_A_NAPI_PID", "uint32"),
    )


class QueueThreads:
    """The threads of a device's receive queues, from start() to stop().

    start() raises Refused where the kernel has no such threads, or does not tell which they are.
    """

    def __init__(self, device: Device):
        self._device = device
        self.pids: list[int] = []  # in the order of the queues

    def start(self) -> None:
        queues = len(self._device.queue_files("rps_cpus"))
        self._receive_offload("on")
        (self._device.sysfs / "threaded").write_text("1")
        self.pids = _pids(self._device)
        if len(self.pids) != queues or not all(map(_is_queue_thread, self.pids)):
            self.stop()
            raise Refused(f"the threads of {self._device}'s receive queues cannot be told: it takes {NEEDS}")

    def stop(self) -> None:
        self.pids = []
        (self._device.sysfs / "threaded").write_text("0")
        self._receive_offload("off")

    def _receive_offload(self, state: str) -> None:
        with self._device.inside():
            run(["ethtool", "-K", self._device.name, "gro", state])

    def pin(self, cpus: tuple[int, ...]) -> None:
        """Queue i to the i-th of these CPUs; further queues begin at the first CPU again."""
        for queue, pid in enumerate(self.pids):
            os.sched_setaffinity(pid, {cpus[queue % len(cpus)]})


def _pids(device: Device) -> list[int]:
    """A driver adds the NAPI instances of its queues in turn, and each new one has a higher id."""
    index = device.index
    try:
        with device.inside(), GenericNetlinkSocket() as netlink:
            netlink.bind("netdev", _Napi)
            request = _Napi()
            request["cmd"], request["version"] = NAPI_GET, 1
            found = netlink.nlm_request(request, msg_type=netlink.prid, msg_flags=NLM_F_REQUEST | NLM_F_DUMP)
            ours = [napi for napi in found if napi.get_attr("NETDEV_A_NAPI_IFINDEX") == index]
    except NetlinkError:  # no family of this name, or no such command in it
        return []
    ours.sort(key=lambda napi: napi.get_attr("NETDEV_A_NAPI_ID"))
    return [napi.get_attr("NETDEV_A_NAPI_PID") or 0 for napi in ours]


def _is_queue_thread(pid: int) -> bool:
    """In a container the number may be that of another process, or of none."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().startswith("napi/")
    except OSError:
        return False
