"""The kernel threads that take in a veth's packets, one thread for each of its receive queues.

This is threaded NAPI (Linux 5.12, commit 29863d41bb6e). A veth has NAPI while generic receive offload is on (Linux
5.13, commit d3256efd8e8b). The sender then does not pay for the receiver's softirq, and pays for an interrupt only
where the thread sleeps. The CPU time of the threads is the cost of the receiver's NIC and its softirq.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path

from pyroute2.netlink import NLM_F_DUMP, NLM_F_REQUEST, genlmsg
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.generic import GenericNetlinkSocket

from fastsocket.steering.command import Refused, run
from fastsocket.steering.device import Device
from fastsocket.steering.emulated import Link
from records.run import NicKind

NAPI_GET = 11  # NETDEV_CMD_NAPI_GET in <linux/netdev.h>
NEEDS = "Linux 6.8 or later (commit 8481a249a0ea) tells which threads serve a NIC's queues"
FIRST_PID_NAMESPACE = 0xEFFFFFFC  # PROC_PID_INIT_INO in include/linux/proc_ns.h


class _Napi(genlmsg):
    """The netlink message about a NAPI instance (Documentation/netlink/specs/netdev.yaml, napi)."""

    nla_map = (
        ("NETDEV_A_NAPI_PAD", "none"),
        ("NETDEV_A_NAPI_IFINDEX", "uint32"),
        ("NETDEV_A_NAPI_ID", "uint32"),
        ("NETDEV_A_NAPI_IRQ", "uint32"),
        ("NETDEV_A_NAPI_PID", "uint32"),
    )


class QueueThreads(AbstractContextManager["QueueThreads"]):
    """The threads of a device's receive queues. The end of the with block ends them.

    Raises Refused where the kernel has no such threads, or does not tell which threads they are.
    """

    def __init__(self, device: Device):
        self.device = device
        with ExitStack() as undo:
            self._receive_offload("on")
            undo.callback(self._receive_offload, "off")
            self._thread("1")
            undo.callback(self._thread, "0")
            self.pids = _pids(device)  # the threads' ids, in the order of the queues
            if len(self.pids) != len(device.queue_files("rps_cpus")) or not all(map(_is_queue_thread, self.pids)):
                raise Refused(f"the threads of {device}'s receive queues cannot be told: {why_not() or NEEDS}")
            self._undo = undo.pop_all()

    def __exit__(self, *exception: object) -> None:
        self._undo.close()

    def _thread(self, state: str) -> None:
        try:
            (self.device.sysfs / "threaded").write_text(state)
        except OSError as error:
            raise Refused(f"{self.device} gets no threads for its receive queues: {error.strerror}") from error

    def _receive_offload(self, state: str) -> None:
        with self.device.inside():
            run(["ethtool", "-K", self.device.name, "gro", state])

    def pin(self, cpus: Sequence[int]) -> None:
        """Pin the thread of queue i to the i-th of these CPUs. Further queues begin at the first CPU again."""
        for queue, pid in enumerate(self.pids):
            os.sched_setaffinity(pid, {cpus[queue % len(cpus)]})


@contextmanager
def threads_of(links: Sequence[Link]) -> Iterator[dict[Device, QueueThreads]]:
    """The queue threads of the devices at both ends of these links, by device. Raises Refused."""
    with ExitStack() as stack:
        ends = [end for link in links for end in (link.sender, link.receiver)]
        yield {end: stack.enter_context(QueueThreads(end)) for end in ends}


def choose(asked: NicKind | None) -> NicKind:
    """How to emulate a NIC: as asked, or else with threads where they can be had. Raises Refused."""
    reason = why_not()
    if asked == "threads" and reason:
        raise Refused(f"no emulated NIC with threads here: {reason}; --nic rps works")
    return asked or ("rps" if reason else "threads")


def why_not() -> str | None:
    """Why the threads of receive queues cannot be had here, or None."""
    if os.stat("/proc/self/ns/pid").st_ino != FIRST_PID_NAMESPACE:
        return "a PID namespace, such as a container's, hides the kernel's threads"
    try:
        _napis()
    except NetlinkError:  # no family of this name, or no such command in it
        return NEEDS
    return None


def _pids(device: Device) -> list[int]:
    """The ids of the threads of a device's receive queues, in the queues' order.

    That is the order of the NAPI ids: a driver adds the NAPI instances of its queues in turn, and each new instance has
    a higher id. The list is empty where the kernel does not know the question.
    """
    index = device.index
    with device.inside(), suppress(NetlinkError):
        ours = [napi for napi in _napis() if napi.get_attr("NETDEV_A_NAPI_IFINDEX") == index]
        ours.sort(key=lambda napi: napi.get_attr("NETDEV_A_NAPI_ID"))
        return [napi.get_attr("NETDEV_A_NAPI_PID") or 0 for napi in ours]
    return []


def _napis() -> list[_Napi]:
    """The NAPI instances in the calling thread's network namespace."""
    with GenericNetlinkSocket() as netlink:
        netlink.bind("netdev", _Napi)
        request = _Napi()
        request["cmd"], request["version"] = NAPI_GET, 1
        return list(netlink.nlm_request(request, msg_type=netlink.prid, msg_flags=NLM_F_REQUEST | NLM_F_DUMP))


def _is_queue_thread(pid: int) -> bool:
    """Whether a process is a queue's kernel thread. In a container the number may be another process's, or unused."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().startswith("napi/")
    except OSError:
        return False
