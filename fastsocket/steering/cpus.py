"""The machine's CPU numbers, and the forms in which the kernel reads and writes lists of CPUs."""

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path

POSSIBLE, ONLINE = Path("/sys/devices/system/cpu/possible"), Path("/sys/devices/system/cpu/online")
MOST_CPUS = 1 << 13  # the most that a kernel can be built for (NR_CPUS_RANGE_END in arch/x86/Kconfig)
_PART = re.compile(r"([0-9]{1,9})(?:-([0-9]{1,9}))?")


def parse_cpus(text: str, count: int = MOST_CPUS) -> tuple[int, ...]:
    """The CPUs of a list such as "0-3,8" (the kernel's cpulist format), each once, in order.

    count: all CPU numbers must be below it. Each range is checked before it is expanded, because anybody may have
    written the list. Raises ValueError, whose message says what is wrong.
    """
    cpus: set[int] = set()
    for part in text.split(","):
        found = _PART.fullmatch(part)
        if not found:
            raise ValueError("name CPUs as in 0-3,8")
        first, last = int(found[1]), int(found[2] or found[1])
        if last < first:
            raise ValueError(f"{part} goes backwards: {last}-{first}")
        if last >= count:
            raise ValueError(f"there is no CPU {last}: they are numbered from 0 to {count - 1}")
        cpus.update(range(first, last + 1))
    return tuple(sorted(cpus))


def cpus_in(file: Path) -> tuple[int, ...]:
    """The CPUs in a file of the kernel that holds a list of CPUs."""
    return parse_cpus(file.read_text().strip())


@cache
def machine_cpus() -> int:
    """The highest possible CPU number, plus 1. It stays the same until the next boot."""
    return cpus_in(POSSIBLE)[-1] + 1


def cpu_mask(cpus: Sequence[int]) -> str:
    """A set of CPUs as sysfs takes it: groups of 32 bits in hex, highest first (bitmap_parse() in lib/bitmap-str.c)."""
    bits = sum(1 << cpu for cpu in cpus)
    groups = [bits >> shift & 0xFFFFFFFF for shift in range(0, max(bits.bit_length(), 1), 32)]
    return ",".join(f"{group:08x}" for group in reversed(groups))
