"""One trial: a fresh server, a load, and everything that is observed meanwhile."""

import time
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.cpu import busy_seconds, difference, snapshot, steal_share
from bench.probes import Probes
from bench.record import CpuUse, LibraryCounters, Placement, Trial
from bench.schedule import Slot
from fastsocket import page
from fastsocket.nic import EmulatedNic
from topologies.tag import RunTag
from topologies.testbed import Testbed
from workloads import WORKLOADS
from workloads.variants import VARIANTS
from workloads.wrk import Load, wrk

STEAL_TOLERATED = 0.05
COUNTED_DURING_TRIAL = ("accepted_local", "accepted_global", "accepted_neighbour", "deferred", "registered")


class Bench:
    """A testbed with its emulated NIC and probes, ready for trials."""

    def __init__(self, tag: RunTag, testbed: Testbed, nic: EmulatedNic, probes: Probes):
        self._tag = tag
        self._testbed = testbed
        self._nic = nic
        self._probes = probes

    def run(self, slot: Slot, placement: Placement, seconds: int) -> Trial:
        """Raises WorkloadError when the server or the load generator fails."""
        workload, variant = WORKLOADS[slot.workload], VARIANTS[slot.variant]
        self._testbed.steer_to(self._testbed.server.intf(), placement.server_cpus)
        self._nic.steer(variant.steering, slot.cores)
        with TemporaryDirectory(dir=self._tag.directory) as directory, \
                workload.serve(self._testbed, variant, placement.server_cpus, Path(directory)) as pid:
            library = _library(pid) if variant.has_local_listeners else None
            self._probes.start(pid, workload.port)
            started, before = time.time(), snapshot()
            load = wrk(self._testbed, workload.port, slot.cores, placement.load_cpus, seconds)
            cpus = sorted({*placement.server_cpus, *placement.load_cpus})
            use = difference(before, snapshot(), cpus)
            observed = self._probes.metrics(load.requests)
            library = _since(library, _library(pid)) if library else None
        return Trial(
            **vars(slot), started=started, seconds=load.seconds,
            metrics={**_metrics(workload.metric, load, use), **observed}, unavailable=self._probes.unavailable,
            latency_ms=load.latency_ms, load_errors=load.errors, cpu=use, load_cpu_seconds=load.cpu_seconds,
            library=library, spoilt=_spoilt(load, use))


def _library(pid: int) -> list[LibraryCounters]:
    return [LibraryCounters(**vars(counted)) for counted in page.counters(pid)]


def _since(before: list[LibraryCounters], after: list[LibraryCounters]) -> list[LibraryCounters]:
    """What happened between two readings; adoptions happen at the server's start, so those stay totals."""
    return [now.model_copy(update={name: getattr(now, name) - getattr(was, name) for name in COUNTED_DURING_TRIAL})
            for was, now in zip(before, after)]


def _metrics(throughput: str, load: Load, use: list[CpuUse]) -> dict[str, float]:
    measured = {
        throughput: load.requests / load.seconds,
        "latency_p50_ms": load.latency_ms["50"],
        "latency_p99_ms": load.latency_ms["99"],
        "latency_max_ms": load.latency_ms["max"],
        "errors": float(sum(load.errors.values())),
    }
    if load.requests:
        measured["cpu_us_per_request"] = 1e6 * (busy_seconds(use) - load.cpu_seconds) / load.requests
    return measured


def _spoilt(load: Load, use: list[CpuUse]) -> list[str]:
    """Reasons to trust a trial less. It is kept and counted all the same."""
    reasons = []
    if steal_share(use) > STEAL_TOLERATED:
        reasons.append(f"more than {STEAL_TOLERATED:.0%} of the CPU time was stolen")
    if any(load.errors.values()):
        reasons.append("the load generator saw errors")
    return reasons
