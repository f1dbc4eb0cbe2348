"""Interrupts by which one CPU wakes or calls another (/proc/interrupts, proc(5))."""

import re
from pathlib import Path

# As show_interrupts() names them: x86's RES and CAL, and IPI0 and IPI1 of arm64.
BETWEEN_CPUS = re.compile(r"^\s*\w+:((?:\s+\d+)+)\s+(?:Rescheduling|Function call) interrupts$", re.MULTILINE)


def between_cpus() -> int:
    """How many all CPUs got since the machine started."""
    counts = BETWEEN_CPUS.findall(Path("/proc/interrupts").read_text())
    return sum(int(count) for line in counts for count in line.split())
