"""run.json: what was asked for, and the circumstances of the run."""

import os
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from records.metrics import COST, SERVER_COST

PASSING = ("load before",)  # entries of a fingerprint that differ from run to run on the same machine

NicKind = Literal["threads", "rps", "cpumap"]


class Record(BaseModel):
    """The base of all records: immutable, and it refuses unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Effect(Record):
    """A ratio: the product of some variants' throughputs, over the product of other variants' throughputs."""

    of: list[str]  # variants above the line
    over: list[str]  # variants below the line
    claim: str | None = None  # the claim in analysis/published/claims.csv, if this ratio was published


class FigureText(Record):
    """What an experiment file says about its figure. The run keeps a copy."""

    title: str
    slides: str = ""  # the figure's place in the slides, and the numbers given there
    labels: dict[str, str] = {}  # variant -> its name in the figure
    effects: dict[str, Effect] = {}  # for figures of the kind "effects": name -> the ratio to draw


class FigureSpec(FigureText):
    """A figure to draw from this run."""

    id: str
    kind: str  # how it is drawn: a key of records.kinds.KINDS
    workloads: list[str] = []  # the workloads that it shows; empty: all of the run
    variants: list[str] = []  # the variants that it shows; empty: all of the run


class Primary(Record):
    """The primary outcome: the ratio that an experiment is about, at the largest core count."""

    workload: str
    of: str  # variant
    over: str = "base"
    metric: str | None = None  # None: throughput or, at a given rate, the cost


class Asked(Record):
    """What an experiment file asks for. The run keeps a copy, with the changes that the caller asked for."""

    title: str = ""  # empty: the run was made before titles were kept
    workloads: list[str]
    variants: list[str]
    rates: dict[str, int] = {}  # workload -> requests per second and core; a workload without one runs at full speed
    day: bool = False  # the rates are the peak of a day, and each block is a part of that day: bench/rate.py
    share: float | None = None  # the rate of all arms, as a share of base's capacity (bench/capacity.py)
    latency_share: float | None = None  # the same for a second load in each trial, from which the latencies come
    neighbour: int | None = None  # nice value of a process that keeps the server's first CPU busy: bench/neighbour.py
    pause: int | None = None  # milliseconds for which one worker is stopped in each trial: bench/pause.py
    burst: int = 0  # at a rate: how many requests come at the same moment; 0: each request at its own
    one_queue: bool = False  # all packets to the server are handled on its first CPU
    primary: Primary | None = None  # named before the run; all other ratios are adjusted or exploratory
    observes: Literal["profile", "walk", "calls"] | None = None  # what is recorded besides metrics: bench/observers.py


class Options(Asked):
    """What was asked for. The schedule is computed from the options alone, so that a run can go on where it stopped."""

    experiment: str
    lacking: dict[str, dict[str, str]] = {}  # workload -> variant that cannot run with it here -> why
    cores: list[int]
    blocks: int
    seconds: int  # of load per trial
    seed: int
    limits: dict[str, int] = {}  # the limits of workloads/limits.py that were not the default
    nic: NicKind | Literal["none"] = "rps"  # how the NIC is emulated: docs/steering.md; none: the NIC is real
    client: str = ""  # the machine with the load generator, as ssh calls it; empty: it is this machine
    server_address: str = ""  # with a client: the address of this machine by which the client reaches the server
    why_not: str = ""  # why this machine cannot run the experiment, which then has no trials; empty: it can
    figures: list[FigureSpec] = []

    @property
    def cost(self) -> str:
        """The metric of what a request costs: SERVER_COST if the emulated NIC has threads of its own, else COST."""
        return SERVER_COST if self.nic == "threads" else COST

    @property
    def question(self) -> str:
        """The options that decide whether two runs of one experiment can be compared: then this text is the same."""
        of_load = ("rates", "day", "share", "latency_share", "burst")
        names = (*of_load, "neighbour", "pause", "one_queue", "nic", "observes")
        return ", ".join(f"{name} {getattr(self, name)}" for name in names)

    def at_rate(self, workload: str) -> bool:
        """Whether all variants get the same load. Then the outcome is what a request costs, not how many are served."""
        return workload in self.rates or self.share is not None

    @property
    def loads(self) -> int:
        """How many loads a trial has."""
        return 1 if self.latency_share is None else 2

    def hour(self, block: int) -> float:
        """The hour of the day, from 0 to 24, that a block stands for: the middle of the block's part of the day."""
        return 24 * (block + 0.5) / self.blocks


class Placement(Record):
    """Which CPUs the server and its load generator run on; shared has the CPUs that both use."""

    cores: int
    server_cpus: list[int]
    load_cpus: list[int]  # empty: the load generator is on another machine, and has all CPUs of that machine

    @property
    def shared(self) -> list[int]:
        return sorted(set(self.server_cpus) & set(self.load_cpus))


class Circumstances(Record):
    """What can change a result on the machine that measures: kernel, CPUs, versions, settings and so on."""

    fingerprint: dict[str, str]  # kernel, CPU, memory, …
    kernel_settings: dict[str, str] = {}  # settings of the kernel's build, and sysctls
    machine_cpus: int | None = None  # the highest possible CPU number, plus 1; None: older runs did not record it
    versions: dict[str, str]  # of the servers, the tools and the libraries
    client: dict[str, str] = {}  # of a client machine: its name, system, CPUs, programs; empty: there is none
    placements: list[Placement]
    unavailable: dict[str, str]  # metric -> why this machine cannot give it
    capacities: dict[str, float] = {}  # "workload/cores" -> requests per second that base takes: bench/capacity.py


class LostBlock(Record):
    """An attempt at a block that a testbed did not finish. Nothing of the attempt is kept."""

    block: int
    host: str
    why: str


class Run(Circumstances):
    """A run and its circumstances. If several testbeds measured it, these are the circumstances of the first one."""

    options: Options
    started: str  # ISO 8601 with time zone
    left_out: dict[str, str] = {}  # workload -> why the rest of its trials was not run
    testbeds: dict[str, Circumstances] = {}  # by Trial.testbed; empty: the machine that began the run measured alone
    lost_blocks: list[LostBlock] = []  # attempts that workers of a cluster did not finish: bench/cluster.py
    planned_trials: int
    complete: bool = False
    wall_seconds: float = 0.0  # from the start of the command to the end of the last trial


class RecordError(Exception):
    """A run directory that cannot be read or written; the message names the file and the remedy."""

    exit_status = 2


RUN = "run.json"


def write_run(directory: Path, run: Run) -> None:
    """Replace run.json in one step, so that a crash leaves the old file or the new one."""
    new = directory / (RUN + ".new")
    with open(new, "w") as file:
        file.write(run.model_dump_json(indent=2) + "\n")
        file.flush()
        os.fsync(file.fileno())  # else a crash of the machine could leave an empty run.json
    new.replace(directory / RUN)


def read_run(directory: Path) -> Run:
    """Read run.json. Raises RecordError if the file is missing, is damaged, or comes from another version."""
    try:
        return Run.model_validate_json((directory / RUN).read_bytes())
    except FileNotFoundError as error:
        raise RecordError(f"{directory} holds no run: {RUN} is missing") from error
    except ValidationError as error:
        raise RecordError(f"{directory / RUN} is not a run of this version: {error.errors()[0]['msg']}") from error


def runs_in(directory: Path) -> list[Path]:
    """The run directories in a directory: the directory itself or, if a sweep ran several experiments there, one for
    each of them, in the order in which the runs began.

    Raises RecordError if there is none.
    """
    if (directory / RUN).exists():
        return [directory]
    parts = [path.parent for path in directory.glob(f"*/{RUN}")]
    if not parts:
        raise RecordError(f"{directory} holds no run: {RUN} is missing")
    return sorted(parts, key=lambda part: read_run(part).started)
