"""CPU numbers: the machine's, lists of them, and the forms in which the kernel reads and writes those."""

from collections.abc import Sequence
from pathlib import Path

POSSIBLE, ONLINE = Path("/sys/devices/system/cpu/possible"), Path("/sys/devices/system/cpu/online")


def parse_cpus(text: str) -> tuple[int, ...]:
    """The CPUs of a list as in "0-3,8" (the kernel's cpulist format). Raises ValueError."""
    cpus: set[int] = set()
    for part in text.strip().split(","):
        first, dash, last = part.partition("-")
        cpus |= set(range(int(first), int(last if dash else first) + 1))
    return tuple(sorted(cpus))


def machine_cpus() -> int:
    """The highest possible CPU number, plus 1."""
    return parse_cpus(POSSIBLE.read_text())[-1] + 1


def cpu_mask(cpus: Sequence[int]) -> str:
    """The form of a CPU set in sysfs: groups of 32 bits, highest first (bitmap_parse() in lib/bitmap-str.c)."""
    bits = sum(1 << cpu for cpu in cpus)
    groups = [bits >> shift & 0xFFFFFFFF for shift in range(0, max(bits.bit_length(), 1), 32)]
    return ",".join(f"{group:08x}" for group in reversed(groups))
