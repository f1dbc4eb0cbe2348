"""Compute the results of a measurement from two readings of a server and the samples between them."""

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from fastsocket.measure.measured import SHORT, Connections, Costs, Cpu, Namespace, Queue, Watching, Worker
from fastsocket.measure.probe import Row, Took, total
from fastsocket.measure.reading import Reading, Thread
from fastsocket.measure.tasks import Ran, Stat
from fastsocket.processes import status_of
from fastsocket.steering.cpus import parse_cpus

US = 1e6
NOT_BUSY = ("idle", "iowait", "steal")
SOFTIRQ = ("irq", "softirq")
LEAST_PERCENT = 0.1  # a thread that ran for a smaller part of the time, and accepted nothing, is no worker
_NOT_YET = Thread(0, Ran(0.0, 0.0, 0), Stat(0, 0, 0))


@dataclass
class Seen:
    """What the samples between two readings found."""

    queues: dict[int, list[int]] = field(default_factory=lambda: defaultdict(list))  # accept queue lengths by inode
    cpus: dict[int, set[int]] = field(default_factory=lambda: defaultdict(set))  # the CPUs of each thread, by thread


class Calls(NamedTuple):
    """The system calls in the seconds in which they were counted, and what else happened in these seconds.

    firsts and reads: passive connections that were read from for the first time, and all reads of passive ones.
    """

    calls: int
    firsts: int
    reads: int
    seconds: float
    bpf: Took | None  # the time that BPF programs took; None: the caller lacks the privilege to know


class Between:
    """What happened between two readings. A thread that ended between them is missing, with all that it did."""

    def __init__(self, before: Reading, after: Reading, seen: Seen, has_rows: bool):
        """has_rows: True: BPF counted the reads."""
        self._before, self._after, self._seen, self._has_rows = before, after, seen, has_rows
        self.seconds = after.at - before.at
        self._threads = {
            thread: _difference(before.threads.get(thread, _NOT_YET), now) for thread, now in after.threads.items()
        }
        rows = {thread: (before.rows.get(thread, Row()), row) for thread, row in after.rows.items()}
        self._rows = {thread: Row(*(new - old for old, new in zip(*pair))) for thread, pair in rows.items()}
        self._all = total(self._rows.values())
        self._may_run_on = {thread: _affinity(now.process, thread) for thread, now in self._threads.items()}
        allowed = {cpu for cpus in self._may_run_on.values() if cpus for cpu in parse_cpus(cpus)}
        self.usable_cpus = sorted(allowed & before.cpus.keys() & after.cpus.keys())  # /proc/stat has only online CPUs

    @property
    def changed(self) -> bool:
        """Whether threads came or went."""
        return self._before.threads.keys() != self._after.threads.keys()

    @property
    def processes(self) -> int:
        return len({thread.process for thread in self._threads.values()})

    @property
    def threads(self) -> int:
        return len(self._threads)

    # ---- connections

    def passive(self) -> Connections | None:
        row = self._all
        return self._connections(
            row.passive_firsts,
            row.passive_reads,
            row.passive_local,
            _percent(row.passive_firsts_local, row.passive_firsts),
        )

    def active(self) -> Connections | None:
        row = self._all
        return self._connections(row.active_firsts, row.active_reads, row.active_local, None)

    def _connections(self, firsts: int, reads: int, local: int, first_local: float | None) -> Connections | None:
        if not self._has_rows:
            return None
        each = reads / firsts if firsts else None
        return Connections(firsts / self.seconds, reads, each, _percent(local, reads), first_local)

    def namespace(self) -> Namespace:
        new, old = self._after.counts, self._before.counts
        return Namespace(
            (new.accepted - old.accepted) / self.seconds,
            (new.opened - old.opened) / self.seconds,
            new.overflowed - old.overflowed,
            new.dropped - old.dropped,
            new.time_wait,
        )

    def queues(self) -> list[Queue]:
        """The accept queue of each address. It counts the listeners that existed in both readings, all together."""
        by_address = defaultdict(list)
        for inode, listener in self._after.listening.items():
            if inode in self._before.listening:
                by_address[str(listener)].append(inode)
        return [self._queue(address, inodes) for address, inodes in sorted(by_address.items())]

    def _queue(self, address: str, inodes: list[int]) -> Queue:
        lengths = [sum(sample) for sample in zip(*(self._seen.queues[inode] for inode in inodes))]
        old, new = self._before.listening, self._after.listening
        return Queue(
            address,
            len(inodes),
            sum(lengths) / max(1, len(lengths)),
            max(lengths, default=0),
            sum(new[inode].limit for inode in inodes),
            sum(new[inode].dropped - old[inode].dropped for inode in inodes),
        )

    # ---- CPU time

    def workers(self) -> list[Worker]:
        found = [self._worker(number, thread) for number, thread in sorted(self._threads.items())]
        return [worker for worker in found if worker.cpu_percent >= LEAST_PERCENT or worker.connections_percent]

    def _worker(self, number: int, thread: Thread) -> Worker:
        firsts = self._rows.get(number, Row()).passive_firsts
        return Worker(
            thread.process,
            number,
            self._may_run_on[number],
            sorted({*self._seen.cpus[number], thread.stat.cpu}),
            100 * thread.ran.seconds / self.seconds,
            _percent(thread.ran.waited, thread.ran.waited + thread.ran.seconds) or 0.0,
            _percent(firsts, self._all.passive_firsts),
        )

    def _ran(self) -> float:
        return sum(thread.ran.seconds for thread in self._threads.values())

    def waited_percent(self) -> float:
        waited = sum(thread.ran.waited for thread in self._threads.values())
        return _percent(waited, waited + self._ran()) or 0.0

    def _spent(self, cpus: list[int], *states: str) -> float:
        """The seconds that these CPUs spent in these states, all together."""
        return sum(self._after.cpus[cpu][state] - self._before.cpus[cpu][state] for cpu in cpus for state in states)

    def machine(self) -> list[Cpu]:
        """The CPUs that the server may use, and what each of them did."""
        old = self._before.received
        received = {cpu: (now - old.get(cpu, 0)) % (1 << 32) for cpu, now in self._after.received.items()}
        return [
            Cpu(
                cpu,
                _percent(received.get(cpu, 0), sum(received.values())) or 0.0,
                100 * self._spent([cpu], *SOFTIRQ) / self.seconds,
                100 - 100 * self._spent([cpu], *NOT_BUSY) / self.seconds,
                100 * self._spent([cpu], "steal") / self.seconds,
            )
            for cpu in self.usable_cpus
        ]

    def others_percent(self) -> float:
        busy = self.seconds * len(self.usable_cpus) - self._spent(self.usable_cpus, *NOT_BUSY)
        others = busy - self._spent(self.usable_cpus, *SOFTIRQ) - self._ran()
        return max(0.0, 100 * others / (self.seconds * len(self.usable_cpus)))

    def costs(self, calls: Calls | None) -> Costs | None:
        """The costs of a connection, or of a read where connections are kept open. None where there was none."""
        row, namespace = self._all, self.namespace()
        made = (namespace.accepted_per_second + namespace.opened_per_second) * self.seconds
        is_short = not self._has_rows or row.passive_reads <= SHORT * row.passive_firsts
        units = (row.passive_firsts if is_short else row.passive_reads) if self._has_rows else made
        if not units:
            return None
        user, system = self._split()
        called = (calls.firsts if is_short else calls.reads) if calls else 0
        segments = self._after.counts.segments - self._before.counts.segments
        return Costs(
            unit="connection" if is_short else "read",
            user_us=US * user / units,
            system_us=US * system / units,
            softirq_us=US * self._spent(sorted(self._after.cpus), *SOFTIRQ) / units,
            interrupts=(self._after.interrupts - self._before.interrupts) / units,
            segments=segments / (made if is_short else units) if made or not is_short else None,
            calls=calls.calls / called if calls and called else None,
            contentions=row.contentions / units if self._has_rows else None,
        )

    def watching(self, calls: Calls | None, start: float, own: float) -> Watching:
        """What the watching itself cost. start, own: CPU seconds of this process before it watched, and since then."""
        percent, bpf = 100 / (self.seconds * len(self.usable_cpus)), None
        if calls and calls.bpf:
            bpf = percent * (calls.bpf.always * self.seconds / calls.seconds + calls.bpf.calls)
        return Watching(start, percent * own, bpf)

    def _split(self) -> tuple[float, float]:
        """The server's CPU seconds in user mode and in system mode. Clock ticks give the proportion of the two."""
        user = sum(thread.stat.user for thread in self._threads.values())
        system = sum(thread.stat.system for thread in self._threads.values())
        part = user / (user + system) if user + system else 0.0
        return self._ran() * part, self._ran() * (1 - part)


def _difference(before: Thread, now: Thread) -> Thread:
    ran, stat = now.ran, now.stat
    return Thread(
        now.process,
        Ran(ran.seconds - before.ran.seconds, ran.waited - before.ran.waited, ran.switches - before.ran.switches),
        Stat(stat.user - before.stat.user, stat.system - before.stat.system, stat.cpu),
    )


def _affinity(process: int, thread: int) -> str:
    """The CPUs where a thread may run, such as "0-3,8"; empty for a thread that has ended."""
    try:
        return status_of(Path(f"/proc/{process}/task/{thread}"))["Cpus_allowed_list"]
    except OSError:
        return ""


def _percent(part: float, whole: float) -> float | None:
    return 100 * part / whole if whole else None
