"""What the whole machine counts (proc(5)): the CPUs' time, interrupts between CPUs, how often a CPU took packets in."""

import os
import re
from pathlib import Path

# The columns of a cpu line of /proc/stat that we keep; nice is user time, guest time is contained in user.
COLUMNS = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")

Snapshot = dict[int, dict[str, float]]


def snapshot() -> Snapshot:
    """Seconds since boot by CPU and state (/proc/stat)."""
    tick = os.sysconf("SC_CLK_TCK")
    lines = [line.split() for line in Path("/proc/stat").read_text().splitlines()]
    per_cpu = [fields for fields in lines if fields[0].startswith("cpu") and fields[0] != "cpu"]
    return {
        int(name[3:]): {state: int(value) / tick for state, value in zip(COLUMNS, values)} for name, *values in per_cpu
    }


# As show_interrupts() names them: x86's RES and CAL, and IPI0 and IPI1 of arm64.
BETWEEN_CPUS = re.compile(r"^\s*\w+:((?:\s+\d+)+)\s+(?:Rescheduling|Function call) interrupts$", re.MULTILINE)


def between_cpus() -> int:
    """How many interrupts, by which one CPU wakes or calls another, all CPUs got since boot (/proc/interrupts)."""
    counts = BETWEEN_CPUS.findall(Path("/proc/interrupts").read_text())
    return sum(int(count) for line in counts for count in line.split())


def received() -> dict[int, int]:
    """How often each CPU took packets in since boot: the softirq NET_RX (/proc/softirqs)."""
    heading, *rows = Path("/proc/softirqs").read_text().splitlines()
    (counts,) = (row.split()[1:] for row in rows if row.split()[0] == "NET_RX:")
    return {int(cpu.removeprefix("CPU")): int(count) for cpu, count in zip(heading.split(), counts)}
