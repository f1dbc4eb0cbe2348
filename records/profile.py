"""profiles/*.tsv.gz: where the CPU time of a trial went, as stacks of functions."""

import csv
import gzip
from pathlib import Path
from typing import NamedTuple

FREQUENCY = 4999  # samples per second and CPU; prime, so that samples do not fall into step with the kernel's ticks
NO_SYMBOL = "[no symbol]"  # in place of a function that perf cannot name
SERVER, IDLE, OTHER = "server", "idle", "other"


class Stack(NamedTuple):
    """A call chain, and how many samples were taken in it."""

    samples: int
    role: str  # SERVER, IDLE or OTHER
    command: str  # the name of the process that was running; a softirq runs on top of any process
    object: str  # the file that holds the innermost function, or the kernel
    frames: str  # functions from the outermost to the innermost, separated by ";"


def stacks_path(run_directory: Path, trial: int) -> Path:
    """The path of a trial's profile. trial: the trial's index."""
    return run_directory / "profiles" / f"{trial:04}.tsv.gz"


def write_stacks(path: Path, stacks: list[Stack]) -> None:
    """Write the stacks as a gzipped table: tab-separated, with a heading."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt", newline="") as file:
        writer = csv.writer(file, delimiter="\t", quoting=csv.QUOTE_NONE, escapechar="\\", lineterminator="\n")
        writer.writerows([Stack._fields, *stacks])


def read_stacks(path: Path) -> list[Stack]:
    """Read the stacks that write_stacks() wrote."""
    with gzip.open(path, "rt", newline="") as file:
        rows = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE, escapechar="\\")
        next(rows)
        return [Stack(int(samples), *where) for samples, *where in rows]
