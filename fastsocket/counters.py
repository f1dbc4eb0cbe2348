"""The counters that libfsocket.so has for each CPU, read from counters.def, which the C compiler reads, too."""

import re
from dataclasses import dataclass
from pathlib import Path

LIST = Path(__file__).resolve().parent / "libfsocket" / "counters.def"


@dataclass(frozen=True)
class Counter:
    """One line of counters.def."""

    name: str
    component: str  # the part of the library that must be on for the counter to move
    meaning: str


COUNTERS = [
    Counter(*found) for found in re.findall(r'^COUNTER\((\w+), (\w+), "(.*)"\)$', LIST.read_text(), re.MULTILINE)
]
COUNTER_NAMES = [counter.name for counter in COUNTERS]
