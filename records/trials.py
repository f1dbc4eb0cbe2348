"""trials.jsonl: a line for each trial, in the order in which they ran."""

import errno
import os
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, ValidationError

from records.metrics import METRICS
from records.run import Record, RecordError, Run

TRIALS = "trials.jsonl"
BASE, CONTROL = "base", "control"  # arms: the reference of all comparisons, and base once more as the A/A control
# Owners of CPU time. Hosts of a testbed are owners by their name ("server"). The others are the emulated NIC of a host
# ("server NIC"), the lab, all other processes of the machine, and what no task accounts for, such as interrupts of an
# idle CPU.
NIC, LAB, OTHERS, UNTOLD = " NIC", "lab", "others", "untold"


class CpuUse(Record):
    """Seconds that one CPU spent in each state during a trial (proc(5), /proc/stat)."""

    cpu: int
    user: float
    system: float
    softirq: float
    irq: float
    idle: float
    iowait: float
    steal: float


class LibraryCounters(Record):
    """What libfsocket.so counted on one CPU during a trial, each counter by its name in fastsocket/counters.py."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, int]

    cpu: int

    @property
    def counts(self) -> dict[str, int]:
        return self.__pydantic_extra__


class Trial(Record):
    """One measurement. A metric that could not be measured is in ``unavailable`` with the reason, and is never 0."""

    index: int
    block: int
    workload: str
    variant: str
    control: bool  # whether the trial belongs to the A/A control: it runs as base, but is an arm of its own
    cores: int
    testbed: str = ""  # the key in Run.testbeds of the testbed that measured it; empty: the run's own machine
    started: float  # Unix time
    seconds: float  # of load
    rate: float | None = None  # requests per second offered; None: as many as the server took
    latency_rate: float | None = None  # rate of a second load, from which the latencies come; None: there was none
    metrics: dict[str, float]  # by their names in records.metrics.METRICS
    unavailable: dict[str, str]
    latency_ms: dict[str, float]  # percentile, or "max", -> value
    histograms: dict[str, str] = {}  # at a rate: histograms of latencies in ns, encoded by HdrHistogram (V2, base64)
    load_errors: dict[str, int]  # kind -> count
    cpu: list[CpuUse]
    load_cpu_seconds: float
    spent: dict[str, float] = {}  # owner -> CPU seconds; they add up to the busy time of all CPUs
    library: list[LibraryCounters] | None  # None: the trial did not run with the library's clones
    spoilt: list[str]  # reasons to trust this trial less; it is kept all the same
    repeated: str = ""  # why a first attempt failed, of which nothing is kept; empty: this is the first attempt
    failed: str = ""  # why the trial could not be measured, which then has no metrics; empty: it was measured

    @property
    def arm(self) -> str:
        """The name of the trial in comparisons: its variant, or CONTROL."""
        return CONTROL if self.control else self.variant


def failed_trial(reason: str, **slot: Any) -> Trial:
    """The record of a trial that could not be measured.

    slot: the fields of its bench.schedule.Slot, and of Trial the fields started and rate.
    """
    return Trial(
        **slot,
        seconds=0.0,
        metrics={},
        unavailable={},
        latency_ms={},
        load_errors={},
        cpu=[],
        load_cpu_seconds=0.0,
        library=None,
        spoilt=[],
        failed=reason,
    )


def append_trial(directory: Path, *trials: Trial) -> None:
    """Append trials to trials.jsonl, all or none, and wait until the disk has them.

    All lines go out in one write. If a kill cuts the last line short, read_trials() ignores it. Raises OSError when the
    disk is full.
    """
    lines = b"".join(trial.model_dump_json().encode() + b"\n" for trial in trials)
    descriptor = os.open(directory / TRIALS, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        size = os.fstat(descriptor).st_size
        if os.write(descriptor, lines) < len(lines):
            os.ftruncate(descriptor, size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(directory / TRIALS))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def drop_torn_line(directory: Path) -> None:
    """Cut off a last line that a kill left incomplete, before more lines are appended."""
    path = directory / TRIALS
    if path.exists():
        content = path.read_bytes()
        os.truncate(path, content.rfind(b"\n") + 1)


def read_trials(directory: Path) -> list[Trial]:
    """All trials of a run directory whose lines are whole; an empty list without any. Raises RecordError for a damaged
    line."""
    path = directory / TRIALS
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    trials = []
    for number, line in enumerate(lines, start=1):
        try:
            trials.append(Trial.model_validate_json(line))
        except ValidationError as error:
            raise RecordError(f"{path}:{number} is damaged: {error.errors()[0]['msg']}; remove the line") from error
    return trials


def trials_of(directory: Path, run: Run) -> list[Trial]:
    """The trials of this run, by read_trials(). Raises RecordError for a damaged line, and for a trial whose workload,
    variant, core count, testbed or metric this run cannot have."""
    trials = read_trials(directory)
    options = run.options
    known: dict[str, list[Any]] = {
        "workload": options.workloads,
        "variant": options.variants,
        "cores": [placement.cores for placement in run.placements],
        "testbed": ["", *run.testbeds],
    }
    for number, trial in enumerate(trials, start=1):
        strange = [f"{field} {getattr(trial, field)!r}" for field in known if getattr(trial, field) not in known[field]]
        strange += [f"metric {name!r}" for name in trial.metrics if name not in METRICS]
        if strange:
            raise RecordError(f"{directory / TRIALS}:{number} is of another run: this one has no {strange[0]}")
    return trials
