"""What libfsocket.so counts on each CPU. The library's sources have the list, which the compiler reads too."""

import re
from dataclasses import dataclass
from pathlib import Path

LIST = Path(__file__).resolve().parent / "libfsocket" / "counters.def"


@dataclass(frozen=True)
class Counter:
    """One line of the list."""

    name: str
    component: str  # the part of the library that must be on for the counter to move
    meaning: str


COUNTERS = [
    Counter(*found) for found in re.findall(r'^COUNTER\((\w+), (\w+), "(.*)"\)$', LIST.read_text(), re.MULTILINE)
]
COUNTER_NAMES = [counter.name for counter in COUNTERS]
