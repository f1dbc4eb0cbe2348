"""Counters of the whole machine (proc(5)): the CPUs' time, interrupts between CPUs, and packets by CPU."""

import os
import re
from pathlib import Path

# The columns of a cpu line in /proc/stat that we keep. nice is user time, too; the guest columns are part of user.
COLUMNS = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")

Snapshot = dict[int, dict[str, float]]


def snapshot() -> Snapshot:
    """The seconds that each CPU has spent in each state since boot, by CPU and state (/proc/stat)."""
    tick = os.sysconf("SC_CLK_TCK")
    lines = [line.split() for line in Path("/proc/stat").read_text().splitlines()]
    per_cpu = [fields for fields in lines if fields[0].startswith("cpu") and fields[0] != "cpu"]
    return {
        int(name[3:]): {state: int(value) / tick for state, value in zip(COLUMNS, values)} for name, *values in per_cpu
    }


# Interrupts between CPUs as show_interrupts() names them: RES and CAL on x86, IPI0 and IPI1 on arm64.
BETWEEN_CPUS = re.compile(r"^\s*\w+:((?:\s+\d+)+)\s+(?:Rescheduling|Function call) interrupts$", re.MULTILINE)


def between_cpus() -> int:
    """How many interrupts CPUs have sent one another since boot, to wake or call each other (/proc/interrupts)."""
    counts = BETWEEN_CPUS.findall(Path("/proc/interrupts").read_text())
    return sum(int(count) for line in counts for count in line.split())


_PROCESSED, _CPU = 0, 12  # columns of /proc/net/softnet_stat (softnet_seq_show() in net/core/net-procfs.c)


def received() -> dict[int, int]:
    """How many packets each CPU has received since boot, in all network namespaces (32 bits, which wrap around)."""
    rows = [line.split() for line in Path("/proc/net/softnet_stat").read_text().splitlines()]
    return {int(row[_CPU], 16): int(row[_PROCESSED], 16) for row in rows}
