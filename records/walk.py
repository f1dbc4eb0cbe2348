"""walks/*.csv: on which CPU each step of a proxied connection happened, numbered as the slides' walk-through does."""

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

PASSIVE_STEPS = (3, 5, 7, 8, 9)
ACTIVE_STEPS = (10, 12, 13, 14, 15)
# Step -> the step of the same connection that ran on the application's CPU.
APPLICATION_STEP = {**dict.fromkeys(PASSIVE_STEPS, 9), **dict.fromkeys(ACTIVE_STEPS, 10)}


class Step(NamedTuple):
    """A row of a walk's file. The source port is the client's or, from step 10 on, the proxy's."""

    connection: int
    step: int
    cpu: int
    us: float  # microseconds since the client's SYN came in
    source_port: int


def walk_path(run_directory: Path, trial: int) -> Path:
    """The path of a trial's walk. trial: the trial's index."""
    return run_directory / "walks" / f"{trial:04}.csv"


def write_walk(path: Path, steps: Iterable[Step]) -> None:
    """Write the steps as CSV with a heading."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([Step._fields, *steps])


def read_walk(path: Path) -> list[Step]:
    """Read the steps that write_walk() wrote."""
    with open(path, newline="") as file:
        rows = csv.reader(file)
        next(rows)
        return [
            Step(int(connection), int(step), int(cpu), float(us), int(port)) for connection, step, cpu, us, port in rows
        ]
