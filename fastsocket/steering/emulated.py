"""The emulated NIC: a program at the sender's end of a veth pair decides which CPU of the receiver handles a packet.

bpf/emulated.bpf.c explains the mechanism. It needs both ends of the link, so it serves a laboratory only.

Classification rule 3 asks the kernel's socket table, in the receiver's network namespace, for a listener
(bpf_sk_lookup_tcp()). A map of ports that user space fills would be out of date whenever a server starts or stops.
A listener that is bound to one device (SO_BINDTODEVICE) is not found, because the sender's end is another device.
"""

import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Protocol

from fastsocket.libbpf import BpfError
from fastsocket.steering.cpus import cpu_mask
from fastsocket.steering.device import Device
from fastsocket.steering.journal import Journal
from fastsocket.steering.plan import MODES, Plan
from fastsocket.steering.program import LEARN, OWN_NETNS, STEER, SteeringProgram, settings


@dataclass(frozen=True)
class Link:
    """Both ends of a veth pair."""

    sender: Device
    receiver: Device


class QueueThreads(Protocol):
    """The kernel threads that take in the packets of a device, one thread for each of its receive queues."""

    def pin(self, cpus: Sequence[int]) -> None:
        """Pin the thread of queue i to the i-th of these CPUs."""


@dataclass(frozen=True)
class _Restored:
    """The settings that a steering program had before they were changed."""

    program: SteeringProgram
    before: bytes

    def undo(self) -> None:
        self.program.set(self.before)


class EmulatedNic(AbstractContextManager["EmulatedNic"]):
    """The steering programs at one or more links. The end of the with block removes them.

    Without a plan the programs change nothing. Each link has tables of its own, as each port of a NIC has. threads: the
    threads of the receive queues, for some devices. At any other device the sender's CPU takes packets in, or the CPU
    that the sender interrupts (RPS). Raises BpfError when the kernel refuses, with the verifier's log, and DeviceError.
    """

    name = "emulated"
    modes = MODES

    def __init__(self, links: Sequence[Link], threads: Mapping[Device, QueueThreads] | None = None):
        self._programs: dict[Device, SteeringProgram] = {}
        self._netns: dict[Device, int] = {}
        self._threads = threads or {}
        with ExitStack() as undo:
            for link in links:
                program = undo.enter_context(SteeringProgram("emulated"))
                journal = undo.enter_context(Journal())
                program.attach_egress("steer", link.sender, STEER, journal)
                program.attach_egress("learn", link.receiver, LEARN, journal)
                self._programs[link.receiver] = program
                self._netns[link.receiver] = _namespace_of_peer(link.sender)
            self._undo = undo.pop_all()

    def why_not(self, device: Device) -> str | None:
        """Why the emulated NIC cannot steer the packets that arrive at this device, or None."""
        if device in self._programs:
            return None
        return f"the far end of {device} is not ours: the emulated NIC decides at the sender's end of a veth pair"

    def apply(self, device: Device, plan: Plan, journal: Journal) -> None:
        """Steer the packets that arrive at this receiver's end, and note each change in the journal."""
        program = self._programs[device]
        if device in self._threads:
            self._threads[device].pin(plan.cpus)
        else:
            for queue in range(len(device.queue_files("rps_cpus"))):
                journal.write_queue(device, "rps_cpus", queue, cpu_mask(plan.cpus))
        journal.note(_Restored(program, program.settings))
        program.set(settings(plan, self._netns[device], by_queue=device in self._threads))

    @contextmanager
    def steer(self, plan: Plan) -> Iterator[None]:
        """Steer at all links by one plan during the with block. Afterwards the links are as before."""
        with Journal() as journal:
            for device in self._programs:
                self.apply(device, plan, journal)
            yield

    def __exit__(self, *exception: object) -> None:
        self._undo.close()


def _namespace_of_peer(device: Device) -> int:
    """The id that a veth's network namespace has for the network namespace of the veth's other end.

    Raises BpfError.
    """
    with device.inside():
        shown = subprocess.run(["ip", "-json", "link", "show", "dev", device.name], capture_output=True, text=True)
    if shown.returncode:
        raise BpfError(shown.stderr.strip())
    return int(json.loads(shown.stdout)[0].get("link_netnsid", OWN_NETNS))
