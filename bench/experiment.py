"""Experiments: one TOML file per table or figure of the slides, saying what to run."""

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
    """Something was asked for that does not exist; the message says what does."""

    exit_status = 2


class Effort(Record):
    """How long an experiment takes: ABBA blocks, and whole seconds of load per trial."""

    blocks: int = Field(ge=1)
    seconds: int = Field(ge=1)


class Shown(Record):
    """The part of a run that a figure shows; empty: all of it."""

    workloads: list[str] = []
    variants: list[str] = []


class Experiment(FigureText, Asked):
    """An experiment file: what to run, and the figure to draw from it."""

    kind: str | None = None  # of its figure; None: it has none of its own
    shows: Shown = Shown()
    draws: list[str] = []  # experiments whose figures its run can show; empty: its own
    cores: Literal["one", "all", "one to all", "threads"] = "one to all"  # threads: one of each core, and all
    nic: NicKind | None = None  # how the NIC is emulated; None: with threads, where this machine can
    quick: Effort
    full: Effort
    paper: Effort

    def require_known_names(self) -> None:
        """Raises UsageError for a kind of figure, an experiment, a workload or a variant that does not exist."""
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
        """Its figure, by this id. Raises UsageError if it has none."""
        if not self.kind:
            raise UsageError(
                f"{FOLDER / name}.toml names no kind of figure, nor other experiments whose figures it draws"
            )
        said = self.model_dump(include=set(FigureText.model_fields))
        return FigureSpec(id=name, kind=self.kind, **self.shows.model_dump(), **said)


class Collection(Record):
    """An experiment file that names others, to be run one after the other."""

    title: str
    parts: list[str]

    def require_known_names(self) -> None:
        """Raises UsageError for a part that is no experiment."""
        require("experiment", self.parts, names())


def names() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def read(name: str) -> Experiment | Collection:
    """Raises UsageError for a name without a file, or a file that does not say what it must."""
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
    """The experiments to run: its parts, or itself alone. Raises UsageError."""
    experiment = read(name)
    return experiment.parts if isinstance(experiment, Collection) else [name]


def require(kind: str, wanted: Iterable[str], known: Iterable[str]) -> None:
    """Raises UsageError unless each wanted name is known."""
    for name in wanted:
        if name not in known:
            raise UsageError(f"unknown {kind} {name!r}: choose from {', '.join(known)}")


def usable_cpus() -> list[int]:
    """The CPUs that this process may run on."""
    return sorted(os.sched_getaffinity(0))


def core_counts(cpus: int, which: str = "one to all") -> list[int]:
    """One, all, or 1, 2, 4, … and all: a curve from one core to the whole machine."""
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
    """How many CPUs are one thread of each core, and how many all threads are; None where these are the same."""
    cores = by_core(cpus, topology)
    return [len(cores), len(cpus)] if len(cores) < len(cpus) else None


def parse_cores(text: str) -> list[int]:
    """A list of core counts from "1,2,4". Raises UsageError for what this machine lacks."""
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
    """The options of a run: what the experiment says, except where the caller says otherwise.

    nic: how the NIC is emulated, instead of as the experiment says. Raises UsageError, LimitError, and
    Refused for threads where there are none.
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
    """Of the first workload that was chosen, where the experiment's own was not; None without its variants."""
    if named is None or not {named.of, named.over} <= set(variants):
        return None
    return named if named.workload in workloads else named.model_copy(update={"workload": workloads[0]})


def nic_kind(asked: str | None) -> NicKind | None:
    """Raises UsageError for a kind of emulated NIC that there is not."""
    known: tuple[NicKind, ...] = get_args(NicKind)
    require("kind of emulated NIC", [asked] if asked else [], known)
    return next((kind for kind in known if kind == asked), None)


def _one(name: str) -> Experiment:
    """Raises UsageError for a collection."""
    experiment = read(name)
    if isinstance(experiment, Collection):
        raise UsageError(f"{name} is several experiments: choose one, such as {experiment.parts[0]}")
    return experiment


def _lacking(workloads: list[str], variants: list[str]) -> dict[str, dict[str, str]]:
    """Workload -> variant that it cannot run as here -> why."""
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
    """The figures of an experiment that have something to show of these workloads. Raises UsageError."""
    specs = [_one(drawn).figure(drawn) for drawn in _one(name).draws or [name]]
    return [spec for spec in specs if not spec.workloads or set(spec.workloads) & set(workloads)]
