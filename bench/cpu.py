"""How long CPUs were in each state: user, system, softirq, idle and so on (proc(5), /proc/stat)."""

from fastsocket.measure.machine import COLUMNS, Snapshot
from records.trials import CpuUse


def difference(before: Snapshot, after: Snapshot, cpus: list[int]) -> list[CpuUse]:
    """The seconds that each of these CPUs spent in each state between two snapshots."""
    return [_use(cpu, before[cpu], after[cpu]) for cpu in cpus]


def _use(cpu: int, before: dict[str, float], after: dict[str, float]) -> CpuUse:
    spent = {state: max(0.0, round(after[state] - before[state], 4)) for state in COLUMNS}
    nice = spent.pop("nice")
    return CpuUse(cpu=cpu, **{**spent, "user": round(spent["user"] + nice, 4)})


def busy_seconds(uses: list[CpuUse]) -> float:
    """CPU seconds in user, system, softirq and irq: neither idle nor taken by the hypervisor."""
    return sum(use.user + use.system + use.softirq + use.irq for use in uses)


def busy_time(uses: list[CpuUse], wall: float) -> float:
    """CPU seconds that were neither idle nor taken by the hypervisor. wall: how many seconds the CPUs were watched.

    This is more exact than busy_seconds(): the kernel measures how long a CPU is idle, but it attributes the rest by
    what its tick finds running (proc(5)).
    """
    return len(uses) * wall - sum(use.idle + use.iowait + use.steal for use in uses)


def busy_share(uses: list[CpuUse]) -> float:
    """The part of these CPUs' time, 0 to 1, in which they were neither idle nor taken by the hypervisor."""
    return busy_seconds(uses) / _all_seconds(uses)


def steal_share(uses: list[CpuUse]) -> float:
    """The part of these CPUs' time, 0 to 1, in which the hypervisor ran something else (steal)."""
    total = _all_seconds(uses)
    return sum(use.steal for use in uses) / total if total else 0.0


def _all_seconds(uses: list[CpuUse]) -> float:
    return busy_seconds(uses) + sum(use.idle + use.iowait + use.steal for use in uses)
