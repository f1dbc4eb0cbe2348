"""One trial: a server is started, loaded and observed."""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from mininet.topo import Topo

from bench.attached import attached
from bench.cpu import busy_seconds, steal_share
from bench.meter import Meter
from bench.schedule import Slot
from bench.soundness import BUSY, is_busy, unharmed, within_time
from bench.spending import CLIENT, Spending
from fastsocket import shared_memory
from fastsocket.steering import Device, EmulatedNic, Plan
from fastsocket.steering.journal import Journal
from fastsocket.steering.rfs import Rfs
from probes.trial import Probes
from records.metrics import (
    COST,
    ERRORS,
    INTERRUPTS,
    MAX,
    P50,
    P99,
    P999,
    PACKETS_IN,
    PACKETS_OUT,
    SERVER_COST,
    SWITCHES,
)
from records.run import Placement
from records.trials import NIC, CpuUse, LibraryCounters, Trial
from topologies.cpumap_nic import CpumapNic
from topologies.queue_threads import QueueThreads
from topologies.tag import JOURNAL, RunTag
from topologies.testbed import Testbed
from workloads import WORKLOADS
from workloads.cpu_program import choose_by_cpu
from workloads.load import Demand, Load
from workloads.process import WorkloadError
from workloads.variants import VARIANTS, Variant
from workloads.workload import Cpus, Workload

STEAL_TOLERATED = 0.05  # of the CPU time; a trial with more is marked as spoilt
SERVER, SERVER_NIC = "server", f"server{NIC}"  # owners of CPU time
WITHOUT_THREADS = "the emulated NIC has no threads of its own, so no task's time is that of the server's packets"
LATENCIES = {P50: "50", P99: "99", P999: "99.9", MAX: "max"}  # metric -> key of Load.latency_ms
TOTALS = ("adopted", "fallen_back")  # counters that are kept whole: adoptions happen when a server starts

# Observes a trial during its load. It is given the id of the server's first process, the ports and a scratch directory.
Observe = Callable[[int, range, Path], AbstractContextManager[None]]


def _nothing_more(server_pid: int, ports: range, scratch: Path) -> AbstractContextManager[None]:
    return nullcontext()


class Bench:
    """The testbeds, their emulated NIC and the probes. It runs trials on them.

    testbeds: by topology, and by the size of the server's own table of established connections (0: it has none).
    """

    def __init__(
        self,
        tag: RunTag,
        testbeds: dict[tuple[type[Topo], int], Testbed],
        nic: EmulatedNic | CpumapNic,
        threads: dict[Device, QueueThreads],
        probes: Probes,
    ):
        self._tag = tag
        self._testbeds = testbeds
        self._nic = nic
        self._threads = threads
        self._probes = probes

    @property
    def client(self) -> dict[str, str]:
        """The client machine, as Run.client has it; empty if there is none."""
        return {name: said for testbed in self._testbeds.values() for name, said in testbed.told.items()}

    def run(
        self,
        slot: Slot,
        placement: Placement,
        seconds: int,
        rate: float | None = None,
        observe: Observe | None = None,
        one_queue: bool = False,
        latency_rate: float | None = None,
        burst: int = 0,
    ) -> Trial:
        """Run a trial: start the server, load it for so many seconds, and measure.

        rate: requests per second in all; None: as many as the server takes. observe: an observer that runs during the
        load. one_queue: all packets to the server are handled on its first CPU. latency_rate: requests per second of a
        second load, from which the latencies are taken; None: there is no second load. burst: as in Demand.

        Raises WorkloadError when the server or the load generator fails.
        """
        workload, variant = WORKLOADS[slot.workload], VARIANTS[slot.variant]
        testbed = self._testbeds[workload.topology, variant.table]
        cpus = Cpus(placement.server_cpus, list(testbed.load_cpus) or placement.load_cpus)
        with (
            nullcontext() if variant.observed else self._probes.taken_off(),
            self._steered(workload, variant, testbed, cpus, one_queue),
            self._set_up(variant, testbed, cpus),
            TemporaryDirectory(dir=self._tag.directory) as directory,
            workload.serve(testbed, variant, cpus, Path(directory)) as pids,
            attached(pids if variant.attached and len(cpus.server) > 1 else []),
        ):
            if variant.by_program:
                choose_by_cpu(pids[0], workload.ports(cpus)[0])
            demand = Demand(seconds, rate, workload.rehearse(testbed, cpus), burst)
            library = _library(pids) if variant.has_local_listeners else None
            self._probes.start(pids[0], workload.ports(cpus), len(cpus.server))
            meter = Meter(Spending(testbed.hosts, self._threads), testbed.server.pid)
            started = time.time()
            with unharmed(pids), meter, (observe or _nothing_more)(pids[0], workload.ports(cpus), Path(directory)):
                load = within_time(partial(workload.load, testbed, cpus, demand), seconds)
            if testbed.load_cpus:
                load = replace(load, cpu_seconds=0.0)  # the load generator took the CPU time of another machine
            use = meter.use(_cpus_of(placement))
            spent = meter.spent(ended={CLIENT: load.cpu_seconds})
            observed = self._probes.metrics(load.served) if variant.observed else {}
            library = _since(library, _library(pids)) if library else None
            no_latencies = ""
            if latency_rate:
                calmer = replace(demand, rate=latency_rate)
                with unharmed(pids):
                    load, no_latencies = _with_latencies(load, partial(workload.load, testbed, cpus, calmer), seconds)
            afterwards = workload.afterwards(testbed, variant, cpus)
        metrics = {**_metrics(workload.metric, load, use), **_paid(load, spent, meter), **observed, **afterwards}
        untold = {**_untold(load, use, no_latencies), **_not_paid(load, spent), **self._probes.unavailable}
        return Trial(
            **vars(slot),
            started=started,
            seconds=load.seconds,
            rate=rate,
            latency_rate=latency_rate,
            metrics={name: value for name, value in metrics.items() if name not in testbed.untold},
            unavailable={**untold, **testbed.untold},
            latency_ms=load.latency_ms,
            histograms=load.histograms,
            load_errors=load.errors,
            cpu=use,
            load_cpu_seconds=load.cpu_seconds,
            spent={owner: round(seconds, 6) for owner, seconds in spent.items()},
            library=library,
            spoilt=[*_spoilt(load, use), *([BUSY] if not observe and is_busy(spent, use, meter.wall) else [])],
        )

    @contextmanager
    def _steered(
        self, workload: Workload, variant: Variant, testbed: Testbed, cpus: Cpus, one_queue: bool
    ) -> Iterator[None]:
        ports = workload.cpu_of_port(cpus) if variant.steering == "perfect" and not one_queue else {}
        for threads in self._threads.values():  # the steering plan then moves the threads of the server's own queues
            threads.pin(cpus.load)
        queues = cpus.server[:1] if one_queue else _queues(variant, cpus)
        with self._nic.steer(Plan(variant.steering, tuple(queues), ports)):
            yield

    @contextmanager
    def _set_up(self, variant: Variant, testbed: Testbed, cpus: Cpus) -> Iterator[None]:
        """Set the kernel's settings that a variant needs, and put them back at the end.

        Some are settings of the whole machine. A journal notes them, so that the next run can put them back after a
        SIGKILL.
        """
        with (
            testbed.settings(testbed.server, variant.sysctls),
            Journal(self._tag.directory / f"machine{JOURNAL}") as journal,
        ):
            for name, value in variant.machine_sysctls.items():
                journal.write(Path("/proc/sys", name), value)
            for link in testbed.links_to(testbed.server) if variant.rfs else []:
                Rfs().apply(link.receiver, Plan("atr", tuple(cpus.server)), journal)
            yield


def _queues(variant: Variant, cpus: Cpus) -> list[int]:
    """The CPUs that handle packets to the server. Raises WorkloadError if the variant needs CPUs beside those of the
    server, and there are none."""
    if variant.taken_in == "own":
        return cpus.server
    others = [cpu for cpu in cpus.load if cpu not in cpus.server][: len(cpus.server)]
    if not others:
        raise WorkloadError(f"{variant.name} needs a CPU beside those of the server: measure on fewer cores")
    return others if variant.taken_in == "others" else [*cpus.server, *others]


def _cpus_of(placement: Placement) -> list[int]:
    """The CPUs whose time a trial counts: those of the server and of the load generator. If the load comes from another
    machine, it is all CPUs, because a real NIC may interrupt any of them."""
    ours = {*placement.server_cpus, *placement.load_cpus}
    return sorted(ours if placement.load_cpus else os.sched_getaffinity(0))


def _with_latencies(load: Load, calmer: Callable[[], Load], seconds: float) -> tuple[Load, str]:
    """Make a calmer load for the latencies. Returns the first load with the latencies of the calmer one and the errors
    of both, and an empty text. If the calmer load fails, returns the first load without latencies, and the reason."""
    try:
        other = within_time(calmer, seconds)
    except WorkloadError as error:
        return replace(load, latency_ms={}, histograms={}), str(error)
    errors = {kind: load.errors.get(kind, 0) + other.errors.get(kind, 0) for kind in {**load.errors, **other.errors}}
    return replace(load, latency_ms=other.latency_ms, histograms=other.histograms, errors=errors), ""


def _library(pids: list[int]) -> list[LibraryCounters]:
    """The library's counters on each CPU, summed over all instances of the server."""
    return [
        LibraryCounters(
            cpu=counted[0].cpu,
            **{name: sum(getattr(one, name) for one in counted) for name in vars(counted[0]) if name != "cpu"},
        )
        for counted in zip(*map(shared_memory.counters, pids))
    ]


def _since(before: list[LibraryCounters], after: list[LibraryCounters]) -> list[LibraryCounters]:
    """What was counted on each CPU between two readings. Counters in TOTALS keep the value of the second reading."""
    return [
        now.model_copy(
            update={name: count - was.counts[name] for name, count in now.counts.items() if name not in TOTALS}
        )
        for was, now in zip(before, after)
    ]


def _metrics(throughput: str, load: Load, use: list[CpuUse]) -> dict[str, float]:
    measured = {
        throughput: load.requests / load.seconds,
        **{metric: load.latency_ms[key] for metric, key in LATENCIES.items() if key in load.latency_ms},
        ERRORS: float(sum(load.errors.values())),
    }
    if load.requests and _others_seconds(load, use) > 0:
        measured[COST] = 1e6 * _others_seconds(load, use) / load.served
    return measured


def _paid(load: Load, spent: Mapping[str, float], meter: Meter) -> dict[str, float]:
    if not load.requests:
        return {}
    counted = {
        INTERRUPTS: meter.interrupts,
        PACKETS_IN: meter.packets.received,
        PACKETS_OUT: meter.packets.sent,
        SWITCHES: meter.switches(SERVER),
    }
    paid = {metric: number / load.served for metric, number in counted.items()}
    if SERVER_NIC in spent:
        paid[SERVER_COST] = 1e6 * (spent[SERVER] + spent[SERVER_NIC]) / load.served
    return paid


def _not_paid(load: Load, spent: Mapping[str, float]) -> dict[str, str]:
    """Metric of _paid() that this trial cannot give -> the reason."""
    if not load.requests:
        return dict.fromkeys((INTERRUPTS, PACKETS_IN, PACKETS_OUT, SWITCHES, SERVER_COST), "nothing was served")
    return {} if SERVER_NIC in spent else {SERVER_COST: WITHOUT_THREADS}


def _others_seconds(load: Load, use: list[CpuUse]) -> float:
    """CPU seconds without those of the load generator."""
    return busy_seconds(use) - load.cpu_seconds


def _untold(load: Load, use: list[CpuUse], no_latencies: str = "") -> dict[str, str]:
    """Metric of _metrics() that this trial cannot give -> the reason."""
    untold = {
        metric: no_latencies or "the load generator does not tell"
        for metric, key in LATENCIES.items()
        if key not in load.latency_ms
    }
    if not load.requests:
        untold[COST] = "nothing was served"
    elif _others_seconds(load, use) <= 0:
        untold[COST] = (
            "the load generator's own CPU time exceeds all of /proc/stat, which some kernels count by the tick"
        )
    return untold


def _spoilt(load: Load, use: list[CpuUse]) -> list[str]:
    """Reasons to trust a trial less. The trial is kept and counted all the same."""
    reasons = []
    if steal_share(use) > STEAL_TOLERATED:
        reasons.append(f"more than {STEAL_TOLERATED:.0%} of the CPU time was stolen")
    if not load.requests:
        reasons.append("nothing was served")
    if any(load.errors.values()):
        reasons.append("the load generator saw errors")
    return reasons
