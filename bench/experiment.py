"""Experiments: one TOML file per table or figure of the slides. The file says what to run."""

import os
import secrets
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, get_args

from pydantic import Field, ValidationError

from bench.threads import TOPOLOGY, by_core
from records.kinds import KINDS
from records.metrics import METRICS
from records.run import Asked, FigureSpec, FigureText, NicKind, Options, Primary, Record
from records.trials import CONTROL
from setup import container
from topologies import queue_threads
from workloads import WORKLOADS, limits
from workloads.variants import VARIANTS, Variant

FOLDER = Path(__file__).resolve().parent.parent / "experiments"

Length = Literal["quick", "full", "paper"]


class UsageError(Exception):
    """The caller asked for something that does not exist or cannot be done; the message says what can."""

    exit_status = 2


class Effort(Record):
    """How long an experiment takes: its number of ABBA blocks, and the whole seconds of load per trial."""

    blocks: int = Field(ge=1)
    seconds: int = Field(ge=1)


class Shown(Record):
    """The workloads and variants of a run that a figure shows; an empty list stands for all of them."""

    workloads: list[str] = []
    variants: list[str] = []


class Experiment(FigureText, Asked):
    """An experiment file: what to run, and the figure to draw from it."""

    kind: str | None = None  # the kind of its figure; None: it has no figure of its own
    shows: Shown = Shown()
    draws: list[str] = []  # experiments whose figures are drawn from its run; empty: its own figure
    cores: Literal["one", "all", "one to all", "threads"] = "one to all"  # threads: one thread of each core, and all
    nic: NicKind | None = None  # how the NIC is emulated; None: with threads, where this machine can
    quick: Effort
    full: Effort
    paper: Effort

    def require_known_names(self) -> None:
        """Raises UsageError for an unknown kind of figure, experiment, workload, variant or metric."""
        require("figure kind", [self.kind] if self.kind else [], KINDS)
        require("experiment", self.draws, names())
        require("workload", [*self.workloads, *self.rates, *self.shows.workloads], WORKLOADS)
        require("variant", [*self.variants, *self.shows.variants], VARIANTS)
        if self.primary:
            require("workload", [self.primary.workload], self.workloads)
            require("variant", [self.primary.of, self.primary.over], self.variants)
            require("metric", filter(None, [self.primary.metric]), METRICS)
        compared = [name for effect in self.effects.values() for name in effect.of + effect.over]
        require("variant", [*self.labels, *compared], [*VARIANTS, CONTROL])

    def figure(self, name: str) -> FigureSpec:
        """The figure of this experiment, with the name as its id. Raises UsageError if the experiment has no figure."""
        if not self.kind:
            raise UsageError(
                f"{FOLDER / name}.toml names no kind of figure, nor other experiments whose figures it draws"
            )
        said = self.model_dump(include=set(FigureText.model_fields))
        return FigureSpec(id=name, kind=self.kind, **self.shows.model_dump(), **said)


class Collection(Record):
    """An experiment file that names other experiments, to be run one after the other."""

    title: str
    parts: list[str]

    def require_known_names(self) -> None:
        """Raises UsageError if a part of the collection is no experiment."""
        require("experiment", self.parts, names())


def names() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def read(name: str) -> Experiment | Collection:
    """Read the experiment file of this name. Raises UsageError if there is no such file, or if its content is wrong."""
    require("experiment", [name], names())
    path = FOLDER / f"{name}.toml"
    try:
        said = tomllib.loads(path.read_text())
        experiment = (Collection if "parts" in said else Experiment).model_validate(said)
        experiment.require_known_names()
    except ValidationError as error:
        (first, *_) = error.errors()
        raise UsageError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    except (tomllib.TOMLDecodeError, UsageError) as error:
        raise UsageError(f"{path}: {error}") from error
    return experiment


def parts(name: str) -> list[str]:
    """The names of the experiments to run: the parts of a collection, or the experiment itself. Raises UsageError."""
    experiment = read(name)
    return experiment.parts if isinstance(experiment, Collection) else [name]


def require(kind: str, wanted: Iterable[str], known: Iterable[str]) -> None:
    """Raises UsageError unless each wanted name is among the known ones. kind: what the message calls such a name."""
    for name in wanted:
        if name not in known:
            raise UsageError(f"unknown {kind} {name!r}: choose from {', '.join(known)}")


def usable_cpus() -> list[int]:
    """The CPUs that this process may run on."""
    return sorted(os.sched_getaffinity(0))


def core_counts(cpus: int, which: str = "one to all") -> list[int]:
    """The core counts of a run on so many CPUs: one, all, or "one to all", which is 1, 2, 4, … and all."""
    doubling = [1 << power for power in range(cpus.bit_length()) if 1 << power < cpus]
    return {"one": [1], "all": [cpus], "one to all": [*doubling, cpus]}[which]


def _why_not_here(variant: Variant) -> str | None:
    if variant.changes_the_machine and container.engine():
        return "it changes a setting of the whole machine, which a container that is killed could not put back"
    return variant.why_not()


def _why_not(experiment: Experiment) -> str:
    if experiment.cores == "threads" and thread_counts(usable_cpus()) is None:
        return "no CPU of this machine has a sibling thread (Hyper-Threading)"
    return ""


def thread_counts(cpus: list[int], topology: Path = TOPOLOGY) -> list[int] | None:
    """How many cores these CPUs have, and how many threads (CPUs). None if no core has a second thread among them."""
    cores = by_core(cpus, topology)
    return [len(cores), len(cpus)] if len(cores) < len(cpus) else None


def parse_cores(text: str) -> list[int]:
    """The core counts in a text such as "1,2,4". Raises UsageError for no numbers, and for more CPUs than this machine
    has."""
    available = len(usable_cpus())
    try:
        cores = sorted({int(part) for part in text.split(",")})
    except ValueError:
        raise UsageError(f"--cores {text!r} is not a list of numbers such as 1,2") from None
    for count in cores:
        if not 1 <= count <= available:
            raise UsageError(f"--cores {count}: this machine has {available} CPUs to use; choose from 1 to {available}")
    return cores


def plan(
    name: str,
    length: Length,
    *,
    workloads: list[str] | None = None,
    variants: list[str] | None = None,
    cores: str | None = None,
    blocks: int | None = None,
    seconds: int | None = None,
    nic: NicKind | None = None,
) -> Options:
    """The options of a run: what the experiment file says, but for what the caller sets.

    nic: how the NIC is emulated, instead of as the experiment file says. Raises UsageError, LimitError, and Refused if
    the NIC shall have threads and this machine's kernel cannot give it any.
    """
    experiment = _one(name)
    effort: Effort = getattr(experiment, length)
    chosen_workloads = list(dict.fromkeys(workloads or experiment.workloads))
    chosen_variants = list(dict.fromkeys(variants or experiment.variants))
    require("workload", chosen_workloads, WORKLOADS)
    require("variant", chosen_variants, VARIANTS)
    chosen = {
        "workloads": chosen_workloads,
        "variants": chosen_variants,
        "rates": {workload: rate for workload, rate in experiment.rates.items() if workload in chosen_workloads},
        "primary": _primary(experiment.primary, chosen_workloads, chosen_variants),
    }
    return Options(
        **experiment.model_dump(include=set(Asked.model_fields)) | chosen,
        experiment=name,
        lacking=_lacking(chosen_workloads, chosen_variants),
        cores=parse_cores(cores) if cores else _cores(experiment),
        why_not=_why_not(experiment),
        blocks=blocks or effort.blocks,
        seconds=seconds or effort.seconds,
        seed=secrets.randbits(32),
        limits=limits.changed(limits.read()),
        nic=queue_threads.choose(nic or experiment.nic),
        figures=figure_specs(name, chosen_workloads),
    )


def _primary(named: Primary | None, workloads: list[str], variants: list[str]) -> Primary | None:
    """The primary outcome of a run of these workloads and variants; None if the run lacks one of its two variants.

    If the run lacks the workload that the experiment names, the first workload of the run takes its place.
    """
    if named is None or not {named.of, named.over} <= set(variants):
        return None
    return named if named.workload in workloads else named.model_copy(update={"workload": workloads[0]})


def nic_kind(asked: str | None) -> NicKind | None:
    """The kind of emulated NIC of this name; None for None. Raises UsageError if there is no such kind."""
    known: tuple[NicKind, ...] = get_args(NicKind)
    require("kind of emulated NIC", [asked] if asked else [], known)
    return next((kind for kind in known if kind == asked), None)


def _one(name: str) -> Experiment:
    """Read a file that has a single experiment. Raises UsageError for a collection."""
    experiment = read(name)
    if isinstance(experiment, Collection):
        raise UsageError(f"{name} is several experiments: choose one, such as {experiment.parts[0]}")
    return experiment


def _lacking(workloads: list[str], variants: list[str]) -> dict[str, dict[str, str]]:
    """Workload -> variant that this server, or this machine, cannot run -> why."""
    return {
        workload: {
            variant: why
            for variant in variants
            if (why := WORKLOADS[workload].why_not(VARIANTS[variant]) or _why_not_here(VARIANTS[variant]))
        }
        for workload in workloads
    }


def _cores(experiment: Experiment) -> list[int]:
    if experiment.cores == "threads":
        return thread_counts(usable_cpus()) or [len(usable_cpus())]
    return core_counts(len(usable_cpus()), experiment.cores)


def figure_specs(name: str, workloads: list[str]) -> list[FigureSpec]:
    """The figures that an experiment draws, without those that show none of these workloads. Raises UsageError."""
    specs = [_one(drawn).figure(drawn) for drawn in _one(name).draws or [name]]
    return [spec for spec in specs if not spec.workloads or set(spec.workloads) & set(workloads)]
