"""What a run leaves on disk, and the one thing that measuring and analysing share.

A run directory holds run.json (one Run) and trials.jsonl (one Trial per line, in the order they ran).
"""

import os
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from fastsocket.counters import COUNTER_NAMES


class Record(BaseModel):
    """Immutable, and strict about what it is made of."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Effect(Record):
    """A ratio of throughputs: of these variants, multiplied, over those."""

    of: list[str]
    over: list[str]
    claim: str | None = None  # of analysis/published/claims.csv, if this ratio was published


class FigureSpec(Record):
    """A figure of the slides, as this run can show it."""

    id: str
    kind: str  # how it is drawn: a key of analysis.figures.KINDS
    title: str
    slides: str = ""  # where it is in the slides, and what is known of it there
    workloads: list[str] = []  # that it shows; empty: all that the run has
    variants: list[str] = []
    labels: dict[str, str] = {}  # variant -> what the figure calls it
    effects: dict[str, Effect] = {}  # for the kind "effects"


class Options(Record):
    """What was asked for. The schedule follows from it alone, so that a run can go on where it stopped."""

    experiment: str
    workloads: list[str]
    variants: list[str]
    lacking: dict[str, dict[str, str]] = {}  # workload -> variant of those above that its server lacks -> why
    cores: list[int]
    blocks: int
    seconds: int  # of load per trial
    rates: dict[str, int] = {}  # workload -> requests per second and core offered; those that lack get all they take
    day: bool = False  # those rates are the peak of a day, whose blocks are its hours: bench/day.py
    seed: int
    limits: dict[str, int] = {}  # of workloads/limits.py that were not the default
    why_not: str = ""  # this machine cannot run it; it then has no trials
    observes: Literal["profile", "walk"] | None = None  # beside the metrics, in each trial: bench/observers.py
    figures: list[FigureSpec] = []

    def hour(self, block: int) -> float:
        """Of a day: the middle of the block's part of it, from 0 to 24."""
        return 24 * (block + 0.5) / self.blocks


class Placement(Record):
    """Which CPUs a server and its load generator ran on; shared is what both use."""

    cores: int
    server_cpus: list[int]
    load_cpus: list[int]

    @property
    def shared(self) -> list[int]:
        return sorted(set(self.server_cpus) & set(self.load_cpus))


class Run(Record):
    """The circumstances of a run."""

    options: Options
    started: str  # ISO 8601 with time zone
    fingerprint: dict[str, str]  # the machine: kernel, CPU, memory, …
    versions: dict[str, str]  # of the servers, the tools and the libraries
    placements: list[Placement]
    unavailable: dict[str, str]  # metric -> why it cannot be had on this machine
    left_out: dict[str, str] = {}  # workload -> why the rest of its trials was not run
    planned_trials: int
    complete: bool = False
    wall_seconds: float = 0.0  # from the start of the command to the end of the last trial


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


# What libfsocket.so counted on one CPU during a trial. An older library lacks some counters: they are 0.
LibraryCounters = create_model(
    "LibraryCounters", __base__=Record, cpu=(int, ...), **{name: (int, 0) for name in COUNTER_NAMES}
)


class Trial(Record):
    """One measurement. Metrics that could not be had are in unavailable with the reason, never 0.

    Metrics: cps (1/s), latency_p50_ms, latency_p99_ms, latency_max_ms, errors (count), cpu_us_per_request (of all
    CPUs, without the load generator's own), passive_local_percent, accept_local_percent, active_local_percent,
    contentions_per_connection.
    """

    index: int
    block: int
    workload: str
    variant: str
    control: bool  # the second arm of the A/A comparison, which runs as base
    cores: int
    started: float  # Unix time
    seconds: float  # of load
    rate: float | None = None  # requests per second offered; None: as many as the server took
    metrics: dict[str, float]
    unavailable: dict[str, str]
    latency_ms: dict[str, float]  # percentile, or "max", -> value
    histograms: dict[str, str] = {}  # at a rate: of latencies in ns, as HdrHistogram encodes them (V2, base64)
    load_errors: dict[str, int]  # kind -> count
    cpu: list[CpuUse]
    load_cpu_seconds: float
    library: list[LibraryCounters] | None
    spoilt: list[str]  # why this trial deserves less trust; it is kept all the same
    failed: str = ""  # why it could not be measured: it then has no metrics

    @property
    def arm(self) -> str:
        """What the trial stands for in comparisons: its variant, or "control"."""
        return "control" if self.control else self.variant


def failed_trial(reason: str, **slot) -> Trial:
    """Of a bench.schedule.Slot's fields, and when it was, and its rate."""
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


class RecordError(Exception):
    """A run directory that cannot be read or written; the message names the file and the remedy."""

    exit_status = 2


RUN = "run.json"
TRIALS = "trials.jsonl"


def write_run(directory: Path, run: Run) -> None:
    """Replace run.json in one step."""
    new = directory / (RUN + ".new")
    new.write_text(run.model_dump_json(indent=2) + "\n")
    new.replace(directory / RUN)


def read_run(directory: Path) -> Run:
    """Raises RecordError when the directory holds no run."""
    try:
        return Run.model_validate_json((directory / RUN).read_bytes())
    except FileNotFoundError as error:
        raise RecordError(f"{directory} holds no run: {RUN} is missing") from error
    except ValidationError as error:
        raise RecordError(f"{directory / RUN} is not a run of this version: {error.errors()[0]['msg']}") from error


def runs_in(directory: Path) -> list[Path]:
    """The directory itself or, of a sweep that ran several experiments, those of its runs in the order they began.

    Raises RecordError when there is none.
    """
    if (directory / RUN).exists():
        return [directory]
    parts = [path.parent for path in directory.glob(f"*/{RUN}")]
    if not parts:
        raise RecordError(f"{directory} holds no run: {RUN} is missing")
    return sorted(parts, key=lambda part: read_run(part).started)


def append_trial(directory: Path, trial: Trial) -> None:
    """Add a trial, whole or not at all: one write, then to the disk; read_trials() ignores a line cut short."""
    line = trial.model_dump_json().encode() + b"\n"
    descriptor = os.open(directory / TRIALS, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(descriptor, line)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def drop_torn_line(directory: Path) -> None:
    """Before appending again after a kill: cut off what is not a whole line."""
    path = directory / TRIALS
    if path.exists():
        content = path.read_bytes()
        os.truncate(path, content.rfind(b"\n") + 1)


def read_trials(directory: Path) -> list[Trial]:
    """All whole trials of a run directory, none if none was finished. Raises RecordError on a damaged line."""
    path = directory / TRIALS
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    trials = []
    for number, line in enumerate(lines, start=1):
        try:
            trials.append(Trial.model_validate_json(line))
        except ValidationError as error:
            raise RecordError(f"{path}:{number} is damaged: {error.errors()[0]['msg']}; remove the line") from error
    return trials
