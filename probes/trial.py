"""What BPF programs measure during a trial: locality of reads and accepts, lock contention, and system calls."""

import struct
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, TypeVar

from fastsocket import reads
from fastsocket.build import bpf_object
from fastsocket.libbpf import BpfError, BpfObject
from records.metrics import ACCEPT_LOCAL, ACTIVE_LOCAL, CALLS, CONTENTIONS, PASSIVE_LOCAL, UNEVENNESS

_LOCALITY = struct.Struct("=6Q")
_COUNT = struct.Struct("=Q")


@dataclass(frozen=True)
class Locality:
    """Reads on the server's TCP sockets, and how many ran on the CPU whose softirq had handled the packet."""

    passive_reads: int
    passive_local: int
    active_reads: int
    active_local: int
    accepts: int
    accepts_local: int

    def percentages(self) -> dict[str, float]:
        """The metrics in percent. A metric of which nothing was counted is left out."""
        counted = {
            PASSIVE_LOCAL: (self.passive_local, self.passive_reads),
            ACTIVE_LOCAL: (self.active_local, self.active_reads),
            ACCEPT_LOCAL: (self.accepts_local, self.accepts),
        }
        return {name: 100 * local / total for name, (local, total) in counted.items() if total}


def _sum_over_cpus(layout: struct.Struct, values: list[bytes]) -> list[int]:
    return [sum(column) for column in zip(*(layout.unpack(value[: layout.size]) for value in values))]


def _namespace(pid: int) -> int:
    """The inode number of a process's network namespace."""
    return Path(f"/proc/{pid}/ns/net").stat().st_ino


class LocalityProbe:
    """fastsocket/bpf/locality.bpf.c, attached to the best tracepoint for reads that the kernel has.

    seen_by: another tracepoint. Raises BpfError if the kernel has none.
    """

    metrics = (PASSIVE_LOCAL, ACCEPT_LOCAL, ACTIVE_LOCAL, UNEVENNESS)

    def __init__(self, stack: ExitStack, seen_by: str | None = None):
        self.seen_by = seen_by or reads.tracepoint()
        self._object = stack.enter_context(reads.load("locality", self.seen_by))
        self.detach = self._object.detach
        self.attach()

    def attach(self) -> None:
        self._object.attach(self.seen_by)

    def watch(self, server_pid: int, ports: range) -> None:
        """Count in the network namespace of this process. Connections to these ports are passive, all others active."""
        self._object.write(".data", struct.pack("=III", _namespace(server_pid), ports[0], ports[-1]))

    def read(self) -> list[int]:
        return _sum_over_cpus(_LOCALITY, self._object.read_per_cpu("totals"))

    def passive_reads(self) -> list[int]:
        """How many reads of passive connections each CPU of the machine has made."""
        values = self._object.read_per_cpu("totals")
        return [_LOCALITY.unpack(value[: _LOCALITY.size])[0] for value in values]


def unevenness(reads_on: list[int], cores: int) -> dict[str, float]:
    """UNEVENNESS: the reads of the busiest CPU over the mean of the server's cores. Empty if nothing was read.

    reads_on: reads by CPU of the machine. cores: how many cores the server has.
    """
    return {UNEVENNESS: max(reads_on) * cores / sum(reads_on)} if any(reads_on) else {}


class _CountingProbe:
    """An attached BPF program that counts in a map how often a tracepoint is hit. Raises BpfError."""

    program: ClassVar[str]  # its name in fastsocket/bpf/
    tracepoint: ClassVar[str]
    counts: ClassVar[str]  # the name of the map

    def __init__(self, stack: ExitStack):
        self._object = stack.enter_context(BpfObject(bpf_object(self.program)))
        self._object.load()
        self.detach = self._object.detach
        self.attach()

    def attach(self) -> None:
        self._object.attach(self.tracepoint)

    def read(self) -> list[int]:
        return _sum_over_cpus(_COUNT, self._object.read_per_cpu(self.counts))


class ContentionProbe(_CountingProbe):
    """Counts lock contentions of the whole machine.

    Raises BpfError if the kernel lacks the tracepoint (Linux 5.19, commit 16edd9b511a1).
    """

    metrics = (CONTENTIONS,)
    program, tracepoint, counts = "contention", "contention_begin", "contentions"


class CallsProbe(_CountingProbe):
    """Counts system calls. While it is attached, each system call of the whole machine is slower."""

    metrics = (CALLS,)
    program, tracepoint, counts = "calls", "sys_enter", "calls"

    def watch(self, server_pid: int) -> None:
        """Count the system calls of processes in the network namespace of this process."""
        self._object.write(".data", struct.pack("=I", _namespace(server_pid)))


Probe = TypeVar("Probe", LocalityProbe, ContentionProbe, CallsProbe)


class Probes(AbstractContextManager["Probes"]):
    """All probes that this kernel can run. ``unavailable`` has the metrics of the other probes, each with the reason.

    count_calls: whether system calls are counted, too.
    """

    def __init__(self, count_calls: bool = False) -> None:
        self.unavailable: dict[str, str] = {}
        self._stack = ExitStack()
        self._locality = self._open(LocalityProbe)
        self._contention = self._open(ContentionProbe)
        self._calls = self._open(CallsProbe) if count_calls else None

    def _open(self, probe: type[Probe]) -> Probe | None:
        try:
            return probe(self._stack)
        except BpfError as error:
            self.unavailable.update(dict.fromkeys(probe.metrics, error.reason))
            return None

    def start(self, server_pid: int, ports: range, cores: int) -> None:
        """Begin to count for a trial.

        server_pid: a process in the server's network namespace. ports: the ports that the server listens on. cores: how
        many cores the server has.
        """
        self._cores = cores
        if self._locality:
            self._locality.watch(server_pid, ports)
            self._reads_before = self._locality.passive_reads()
        if self._calls:
            self._calls.watch(server_pid)
        self._before = self._read()

    @contextmanager
    def taken_off(self) -> Iterator[None]:
        """Detach all probes until the context ends. They then count nothing and cost nothing."""
        probes = [probe for probe in self._all if probe]
        for probe in probes:
            probe.detach()
        try:
            yield
        finally:
            for probe in probes:
                probe.attach()

    @property
    def _all(self) -> tuple[LocalityProbe | None, ContentionProbe | None, CallsProbe | None]:
        return self._locality, self._contention, self._calls

    def _read(self) -> list[list[int]]:
        return [probe.read() if probe else [] for probe in self._all]

    def metrics(self, connections: int) -> dict[str, float]:
        """The metrics of what was counted since start(). connections: how many the trial served."""
        locality, contention, calls = (
            [now - was for now, was in zip(after, before)] for after, before in zip(self._read(), self._before)
        )
        found = Locality(*locality).percentages() if locality else {}
        if self._locality:
            reads = [now - was for now, was in zip(self._locality.passive_reads(), self._reads_before)]
            found |= unevenness(reads, self._cores)
        for metric, number in ((CONTENTIONS, contention), (CALLS, calls)):
            if number and connections:
                found[metric] = number[0] / connections
        return found

    def __exit__(self, *exception: object) -> None:
        self._stack.close()
