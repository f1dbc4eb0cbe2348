"""run.json: what was asked for, and the circumstances of the run."""

import os
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from records.metrics import COST, SERVER_COST

PASSING = ("load before",)  # of fingerprints: another one each time

NicKind = Literal["threads", "rps", "cpumap"]


class Record(BaseModel):
    """Immutable, and strict about what it is made of."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Effect(Record):
    """A ratio of throughputs: of these variants, multiplied, over those."""

    of: list[str]
    over: list[str]
    claim: str | None = None  # of analysis/published/claims.csv, if this ratio was published


class FigureText(Record):
    """What an experiment file says of its figure, and the run keeps as it stands there."""

    title: str
    slides: str = ""  # its place in the slides, and the numbers given there
    labels: dict[str, str] = {}  # variant -> what the figure calls it
    effects: dict[str, Effect] = {}  # for the kind "effects"


class FigureSpec(FigureText):
    """A figure of the slides, as this run can show it."""

    id: str
    kind: str  # how it is drawn: a key of records.kinds.KINDS
    workloads: list[str] = []  # that it shows; empty: all that the run has
    variants: list[str] = []


class Primary(Record):
    """The ratio that an experiment is about, at the largest core count."""

    workload: str
    of: str  # variant
    over: str = "base"
    metric: str | None = None  # None: throughput or, at a given rate, the cost


class Asked(Record):
    """What an experiment file asks for, and the run keeps as it stands there unless the caller says otherwise."""

    title: str = ""  # empty: the run is from before it was kept
    workloads: list[str]
    variants: list[str]
    rates: dict[str, int] = {}  # workload -> requests per second and core; without one, as many as the server takes
    day: bool = False  # those rates are the peak of a day, whose blocks are its hours: bench/rate.py
    share: float | None = None  # of what base takes (bench/capacity.py): the rate of all arms
    latency_share: float | None = None  # the same, of a second load in each trial: latencies are of that one
    neighbour: int | None = None  # nice value of a process that keeps the server's first CPU busy: bench/neighbour.py
    pause: int | None = None  # milliseconds for which one worker is stopped in each trial: bench/pause.py
    burst: int = 0  # of the requests at a rate, so many come at the same moment; 0: each at its own
    one_queue: bool = False  # all packets to the server are handled on its first CPU
    primary: Primary | None = None  # named before the run; all other ratios are adjusted or exploratory
    observes: Literal["profile", "walk", "calls"] | None = None  # beside the other metrics: bench/observers.py


class Options(Asked):
    """What was asked for. The schedule follows from it alone, so that a run can go on where it stopped."""

    experiment: str
    lacking: dict[str, dict[str, str]] = {}  # workload -> variant of those above that its server lacks -> why
    cores: list[int]
    blocks: int
    seconds: int  # of load per trial
    seed: int
    limits: dict[str, int] = {}  # of workloads/limits.py that were not the default
    nic: NicKind | Literal["none"] = "rps"  # how a NIC is emulated: docs/steering.md; none: it is real
    client: str = ""  # the other machine with the load generator, as ssh calls it; empty: it is on this one
    server_address: str = ""  # of this machine, by which that one reaches the server
    why_not: str = ""  # this machine cannot run it; it then has no trials
    figures: list[FigureSpec] = []

    @property
    def cost(self) -> str:
        """The metric that says what a request costs: the server alone, if the emulated NIC has threads of its own."""
        return SERVER_COST if self.nic == "threads" else COST

    @property
    def question(self) -> str:
        """The same for two runs of one experiment whose results can be compared."""
        of_load = ("rates", "day", "share", "latency_share", "burst")
        names = (*of_load, "neighbour", "pause", "one_queue", "nic", "observes")
        return ", ".join(f"{name} {getattr(self, name)}" for name in names)

    def at_rate(self, workload: str) -> bool:
        """Whether all variants get the same load, so that what they cost is the outcome and not what they serve."""
        return workload in self.rates or self.share is not None

    @property
    def loads(self) -> int:
        """Of a trial."""
        return 1 if self.latency_share is None else 2

    def hour(self, block: int) -> float:
        """Of a day: the middle of the block's part of it, from 0 to 24."""
        return 24 * (block + 0.5) / self.blocks


class Placement(Record):
    """Which CPUs a server and its load generator ran on; shared is what both use."""

    cores: int
    server_cpus: list[int]
    load_cpus: list[int]  # empty: the load generator is on another machine, and has all of its CPUs

    @property
    def shared(self) -> list[int]:
        return sorted(set(self.server_cpus) & set(self.load_cpus))


class Circumstances(Record):
    """The machine that measures, as far as it can change a result."""

    fingerprint: dict[str, str]  # kernel, CPU, memory, …
    kernel_settings: dict[str, str] = {}  # of its build, and sysctls
    machine_cpus: int | None = None  # the highest possible CPU number, plus 1; None: from before it was recorded
    versions: dict[str, str]  # of the servers, the tools and the libraries
    client: dict[str, str] = {}  # of another machine with the load generator: its name, system, CPUs, programs
    placements: list[Placement]
    unavailable: dict[str, str]  # metric -> why this machine cannot give it
    capacities: dict[str, float] = {}  # "workload/cores" -> requests per second of base: bench/capacity.py


class LostBlock(Record):
    """An attempt at a block that a testbed did not finish. Nothing of the attempt is kept."""

    block: int
    host: str
    why: str


class Run(Circumstances):
    """A run, with its circumstances: on several testbeds, those of the first."""

    options: Options
    started: str  # ISO 8601 with time zone
    left_out: dict[str, str] = {}  # workload -> why the rest of its trials was not run
    testbeds: dict[str, Circumstances] = {}  # by Trial.testbed; empty: the run's own machine measured alone
    lost_blocks: list[LostBlock] = []  # in a cluster: bench/cluster.py
    planned_trials: int
    complete: bool = False
    wall_seconds: float = 0.0  # from the start of the command to the end of the last trial


class RecordError(Exception):
    """A run directory that cannot be read or written; the message names the file and the remedy."""

    exit_status = 2


RUN = "run.json"


def write_run(directory: Path, run: Run) -> None:
    """Replace run.json in one step."""
    new = directory / (RUN + ".new")
    with open(new, "w") as file:
        file.write(run.model_dump_json(indent=2) + "\n")
        file.flush()
        os.fsync(file.fileno())  # else a crash of the machine could leave an empty file under the name
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
