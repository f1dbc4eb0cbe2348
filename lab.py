#!/usr/bin/env python3
"""Fastsocket Lab: does per-core TCP listening pay on this machine?

python3 lab.py sweep     measure servers with and without Fastsocket, write a report
python3 lab.py profile   where a server's CPU time is spent: list, flame graph, speedscope
python3 lab.py doctor    what this machine can do, what is missing, how to get it
python3 lab.py figures   draw the figures of a run again
python3 lab.py report    write the tables, figures and report of a run again
python3 lab.py compare   say whether a run is worse than another one of the same experiment
python3 lab.py ledger    the A/A controls of many runs, and what runs of the same experiment say together
python3 lab.py model     what more cores would give, by a model that is judged by what it was not fitted to
python3 lab.py worker    measure for the sweeps of another machine
python3 lab.py guest     run a verb, a command or a shell in a guest with other CPUs and another kernel
python3 lab.py pack      write one file for a machine without a network
python3 lab.py clean     remove what a killed run left, and nothing else
python3 lab.py test      build everything and run the tests

On a bare Debian 12 the first call installs what it needs: say --yes, or answer its question. Each verb has --help.
"""

import errno
import signal
import sys
import time
from pathlib import Path

BEGAN = time.monotonic()
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C while modules load just ends, without a traceback

from setup import utf8

if __name__ == "__main__":
    utf8.require()

from setup import bootstrap

if __name__ == "__main__":
    bootstrap.complete_path()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # at a Ctrl-C an installation undoes what it began
    if "doctor" in sys.argv[1:2] and "--help" not in sys.argv:  # doctor runs without the lab's libraries
        from setup import doctor

        sys.exit(doctor.main(sys.argv[2:]))
    bootstrap.ensure(sys.argv[1:], __doc__)
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import math
import os
import shlex
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from setup.interruption import end_once
from setup.options import taking

if TYPE_CHECKING:  # the verbs import what they need, so that --help is quick
    from bench.collection import Collector
    from records.run import Options

ROOT = Path(__file__).resolve().parent
INTERRUPTED = 130
MOST_CORES = 1024  # the most cores for which lab.py model predicts
SOME_TESTS_FAILED = 1  # pytest's exit status
LONGEST = "--durations=10"

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
# bootstrap has acted on --yes before typer sees it. Here typer learns that it exists, and explains it in --help.
Yes = Annotated[bool, typer.Option("--yes", help="Install what is missing without asking.")]
RunDirectory = Annotated[Path, typer.Argument(metavar="DIR", help="The directory of a run.")]


class MachineError(Exception):
    """This machine cannot do what was asked; the message says what is missing and how to get it."""

    exit_status = 3


def _split(values: list[str] | None) -> list[str]:
    return [part for value in values or [] for part in value.split(",")]


def _need_root() -> None:
    from setup import container

    if os.geteuid() != 0:
        raise MachineError("namespaces and BPF need root: run this with sudo")
    if missing := container.lacking():
        names = ", ".join(need.name for need in missing)
        raise MachineError(f"this container lacks {names}: {container.options(missing)}")


@app.callback()
def lab(yes: Yes = False) -> None:
    """Fastsocket Lab: does per-core TCP listening pay on this machine?"""


@dataclass(frozen=True)
class Sweep:
    """The options of sweep, in the order of its --help."""

    experiment: Annotated[
        str | None,
        typer.Argument(metavar="[EXPERIMENT]", help="A file in experiments/, without .toml (default: scalability)."),
    ] = None
    workload: Annotated[list[str] | None, typer.Option(metavar="W", help="Only these servers, such as nginx.")] = None
    variant: Annotated[list[str] | None, typer.Option(metavar="V", help="Only these, such as base,fastsocket.")] = None
    cores: Annotated[
        str | None, typer.Option(metavar="LIST", help="Core counts, such as 1,2 (default: up to all).")
    ] = None
    blocks: Annotated[int | None, typer.Option(min=1, metavar="N", help="ABBA blocks: more narrow the intervals.")] = (
        None
    )
    seconds: Annotated[int | None, typer.Option(min=1, metavar="S", help="Seconds of load per trial.")] = None
    nic: Annotated[
        str | None, typer.Option(metavar="KIND", help="Emulated NIC: threads (where it can), rps or cpumap.")
    ] = None
    client: Annotated[
        str | None,
        typer.Option(
            metavar="USER@HOST", help="Load from that machine, over SSH. Web servers alone: docs/two-hosts.md."
        ),
    ] = None
    server_address: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="With --client: of this machine, where the client finds the server."),
    ] = None
    precision: Annotated[
        str | None, typer.Option(metavar="P%", help="Add blocks until the primary outcome's interval is ± P % narrow.")
    ] = None
    minutes: Annotated[
        float, typer.Option("--time", min=0, metavar="MIN", help="With --precision: minutes after which none is added.")
    ] = 60.0
    cluster: Annotated[
        str | None,
        typer.Option(metavar="HOSTS|N|ADDRESS", help="Blocks go to workers: on HOSTS, N here, a scheduler's."),
    ] = None
    quick: Annotated[bool, typer.Option("--quick", help="Shorter: a first look in a few minutes.")] = False
    paper: Annotated[bool, typer.Option("--paper", help="Longer: figures for publication.")] = False
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the schedule and its time, run nothing.")] = False
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Default: results/<date>-<experiment>.")] = None
    resume: Annotated[bool, typer.Option("--resume", help="Go on where the run in --out stopped.")] = False
    report: Annotated[
        bool, typer.Option("--report/--no-report", help="Draw it now, or later by lab.py report DIR.")
    ] = True
    yes: Yes = False

    @property
    def said(self) -> frozenset[str]:
        """The names of the fields of records.run.Options that the caller has set by these options."""
        fields = {"workloads": self.workload, "variants": self.variant, "cores": self.cores, "nic": self.nic}
        fields |= {"client": self.client, "server_address": self.server_address}
        length = self.quick or self.paper
        told = {**fields, "blocks": self.blocks or length, "seconds": self.seconds or length}
        return frozenset(name for name, value in told.items() if value)


@app.command()
@taking(Sweep)
def sweep(asked: Sweep) -> None:
    """Measure servers as base, latest and fastsocket over core counts, and write a report.

    python3 lab.py sweep --quick --workload nginx
    """
    name = asked.experiment or _resumed(asked) or "scalability"
    planned = _planned(asked, name)
    if asked.dry_run:
        _print_schedules(list(planned.values()))
        return
    aim = _aim(asked, planned)
    here = not asked.cluster or asked.cluster.isdigit()
    with _results(asked.out, name, here) as directory, _measuring(asked, planned) as collector:
        if aim is None:
            status = collector.collect(planned, directory)
        else:
            status = _collect_until(aim, asked, planned, directory, collector)
    raise typer.Exit(status)


@contextmanager
def _measuring(asked: Sweep, planned: "dict[str, Options]") -> "Iterator[Collector]":
    """The collector of a sweep, which measures on this machine or on the testbeds of a cluster."""
    if asked.cluster is None:
        yield _collector(asked)
        return
    from bench.cluster import cluster

    with cluster(asked.cluster, [*planned.values()], partial(typer.echo, err=True)) as testbeds:
        yield replace(_collector(asked), measure=testbeds.measure)


def _aim(asked: Sweep, planned: "dict[str, Options]") -> float | None:
    """The precision that --precision asks for, as a part of 1; None: none is asked for.

    Raises UsageError for what is no percentage, and for runs that have no single precision.
    """
    from bench.experiment import UsageError

    if asked.precision is None:
        return None
    try:
        aim = float(asked.precision.removesuffix("%")) / 100
    except ValueError:
        aim = 0.0
    if not 0 < aim < 1:
        raise UsageError(f"--precision {asked.precision!r} is no percentage such as 2%")
    if len(planned) > 1 or any(options.day or options.observes for options in planned.values()):
        raise UsageError(
            "--precision goes with one experiment, and with none that is a day or that observes its trials"
        )
    return aim


def _collect_until(
    aim: float, asked: Sweep, planned: "dict[str, Options]", directory: Path, measured: "Collector"
) -> int:
    """Measure, and add blocks until the run is as precise as aim or the time is up. Prints which of both it was.

    Returns the exit status.
    """
    from analysis.results import results_in
    from analysis.verdicts import reached
    from bench.precision import ADDED_BLOCKS, goes_on
    from records.run import RUN

    collector = replace(measured, conclude=lambda _: None)
    status, precision = collector.collect(planned, directory), math.inf
    ((part, options),) = planned.items()
    while not status:
        (result,) = results_in(directory)
        precision, options = reached(result.verdicts), result.run.options
        left = 60 * asked.minutes - (time.monotonic() - BEGAN)
        if precision <= aim or not goes_on(options, left):
            break
        more = {part: options.model_copy(update={"blocks": options.blocks + ADDED_BLOCKS})}
        again = replace(collector, resume=True, said=frozenset({"blocks"}), began=time.monotonic())
        status = again.collect(more, directory)
    if (directory / RUN).exists():
        measured.conclude(directory)
    end = "precise enough" if precision <= aim else "interrupted" if status else "the time is up"
    found = f"± {precision:.1%}" if math.isfinite(precision) else "no interval"
    typer.echo(f"{end}: {found} after {options.blocks} blocks; ± {aim:.1%} was asked for")
    return status


def _resumed(asked: Sweep) -> str | None:
    """The experiment of the run that --resume goes on with; None: there is no such run."""
    from records.run import RUN, read_run

    goes_on = asked.resume and asked.out and (asked.out / RUN).exists()
    return read_run(asked.out).options.experiment if goes_on and asked.out else None


def _planned(asked: Sweep, name: str) -> "dict[str, Options]":
    """Experiment -> the options of its run. Raises UsageError for options of the sweep that exclude each other."""
    from bench import experiment as experiments
    from bench.two_hosts import on_two_hosts

    if asked.quick and asked.paper:
        raise experiments.UsageError("--quick and --paper exclude each other: choose one")
    if asked.resume and not asked.out:
        raise experiments.UsageError("--resume goes on with a run: name its directory with --out")
    for option in ("workload", "variant", "cores"):
        if (value := getattr(asked, option)) is not None and not all(_split([value] if option == "cores" else value)):
            raise experiments.UsageError(f"--{option} is empty: leave it out for all")
    parts = experiments.parts(name)
    if (asked.workload or asked.variant) and len(parts) > 1:
        raise experiments.UsageError(
            f"{name} is several experiments: --workload and --variant go with one, such as {parts[0]}"
        )
    planned = {
        part: experiments.plan(
            part,
            "quick" if asked.quick else "paper" if asked.paper else "full",
            workloads=_split(asked.workload),
            variants=_split(asked.variant),
            cores=asked.cores,
            blocks=asked.blocks,
            seconds=asked.seconds,
            nic=experiments.nic_kind(asked.nic),
        )
        for part in parts
    }
    if asked.client is None and asked.server_address is None:
        return planned
    if asked.nic:
        raise experiments.UsageError("--nic is about an emulated NIC, and --client about a real one: choose one")
    if asked.cluster:
        raise experiments.UsageError("--cluster is of testbeds on one machine each, and --client of two: choose one")
    return {
        part: on_two_hosts(options, asked.client or "", asked.server_address or "") for part, options in planned.items()
    }


def _print_schedules(planned: "list[Options]") -> None:
    from analysis.words import counted
    from bench.schedule import expected_seconds, schedule

    schedules = [(options, schedule(options)) for options in planned]
    trials = sum(len(slots) for _, slots in schedules)
    minutes, rest = divmod(round(sum(expected_seconds(slots, options) for options, slots in schedules)), 60)
    typer.echo(f"{trials} trials, about {minutes} min {rest} s")
    for options, slots in schedules:
        typer.echo(f"{options.experiment}, {options.seconds} s per trial")
        for slot in slots:
            arm = "control" if slot.control else slot.variant
            typer.echo(f"{slot.index:5}  block {slot.block:3}  {slot.workload} {arm} on {counted(slot.cores)}")
        for workload, lacking in options.lacking.items():
            for variant, why in lacking.items():
                typer.echo(f"left out: {workload} {variant}: {why}")


@contextmanager
def _results(out: Path | None, name: str, here: bool = True) -> Iterator[Path]:
    """Make this machine ready to measure, and yield the directory of a run.

    What killed runs left is removed. here: whether this machine measures, and not other machines alone; then no other
    run measures here meanwhile.
    """
    from bench.alone import alone
    from bench.collection import results_in

    _need_root()
    with alone() if here else nullcontext():
        _remove_leftovers()
        with results_in(out, name) as directory:
            yield directory


def _collector(asked: Sweep | None = None) -> "Collector":
    """The collector for a sweep's options. A verb without these options, such as profile, passes None."""
    from analysis.live import LiveTable
    from bench.collection import Collector

    asked = asked or Sweep()
    conclude = _conclude if asked.report else _name_the_run
    return Collector(watch=LiveTable, conclude=conclude, began=BEGAN, resume=asked.resume, said=asked.said)


def _name_the_run(directory: Path) -> None:
    typer.echo(f"measured; to draw it: lab.py report {shlex.quote(str(directory))}")


def _conclude(directory: Path) -> None:
    from analysis.outcome import print_outcome
    from analysis.report import write_results
    from analysis.results import results_in

    results = results_in(directory)
    print_outcome(results, write_results(directory, results))


@app.command()
def profile(
    workload: Annotated[str, typer.Argument(metavar="WORKLOAD", help="A server, such as nginx.")],
    variant: Annotated[str, typer.Option(metavar="V", help="Such as base, latest or fastsocket.")] = "fastsocket",
    cores: Annotated[int | None, typer.Option(min=1, metavar="N", help="Of the server (default: all).")] = None,
    seconds: Annotated[int, typer.Option(min=1, metavar="S", help="Of load, in each of two trials.")] = 5,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Default: results/<date>-profile.")] = None,
    yes: Yes = False,
) -> None:
    """Say where the CPU time of a server is spent: top functions, flame graph, speedscope file.

    python3 lab.py profile haproxy --variant fastsocket
    """
    from analysis.profile.flat import top
    from bench import experiment as experiments

    options = experiments.plan(
        "profile",
        "full",
        workloads=[workload],
        variants=[variant],
        cores=None if cores is None else str(cores),
        blocks=1,
        seconds=seconds,
    )
    with _results(out, "profile") as directory:
        status = _collector().collect({"profile": options}, directory)
        typer.echo(top(directory))
    raise typer.Exit(status)


@app.command("doctor")
def doctor_verb(
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False, yes: Yes = False
) -> None:
    """Say what this machine can do, what is missing, and how to get it."""
    from setup import doctor

    raise typer.Exit(doctor.main(["--json"] if as_json else []))


@app.command()
def worker(
    scheduler: Annotated[str, typer.Argument(metavar="ADDRESS", help="Of a Dask scheduler, such as tcp://host:8786.")],
    yes: Yes = False,
) -> None:
    """Measure blocks for sweeps that name the same scheduler as their --cluster, until it ends, or until Ctrl-C.

    python3 lab.py worker tcp://host:8786
    """
    from bench.alone import alone
    from bench.worker import serve

    _need_root()
    with alone():
        _remove_leftovers()
        serve(scheduler)


@app.command()
def figures(
    directory: RunDirectory,
    only: Annotated[str | None, typer.Option(metavar="ID", help="Just this figure.")] = None,
    yes: Yes = False,
) -> None:
    """Draw the figures of a run again."""
    from analysis.figures import draw_all
    from analysis.results import stored_result
    from records.run import runs_in
    from setup.ownership import owned_like_its_folder

    with owned_like_its_folder(directory):
        for path in draw_all([stored_result(part) for part in runs_in(directory)], only):
            typer.echo(path)


@app.command()
def report(directory: RunDirectory, yes: Yes = False) -> None:
    """Write the tables, figures and report of a run again."""
    from analysis.report import write_all
    from setup.ownership import owned_like_its_folder

    with owned_like_its_folder(directory):
        typer.echo(write_all(directory))


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(metavar="DIR_A", help="The run before.")],
    second: Annotated[Path, typer.Argument(metavar="DIR_B", help="The run after, of the same experiment.")],
    fail_below: Annotated[
        float, typer.Option(min=0.0, max=1.0, metavar="R", help="A change whose interval lies below is a regression.")
    ] = 0.95,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    yes: Yes = False,
) -> None:
    """Say whether variants bring less in DIR_B than in DIR_A, each over base in its own run. Exit status 1: one does.

    python3 lab.py compare results/before results/after
    """
    import json

    from analysis.compare import compare as compared

    found = compared(first, second, fail_below)
    if as_json:
        typer.echo(json.dumps(found.as_json(), indent=2))
    else:
        typer.echo("\n".join([*found.warnings, *map(str, found.changes), _conclusion(len(found.regressions))]))
    raise typer.Exit(int(bool(found.regressions)))


@app.command()
def ledger(
    directories: Annotated[
        list[Path] | None, typer.Argument(metavar="[DIR]...", help="Folders of runs, at any depth (default: results/).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    yes: Yes = False,
) -> None:
    """List the A/A controls of many runs, and what runs of the same experiment say together, each run as one value."""
    import json

    from analysis.ledger import pooled, ratios, runs_below, sentences
    from bench.collection import results_folder

    runs, left_out = runs_below(directories or [results_folder()])
    found = ratios(runs)
    if as_json:
        tables = {"ratios": found, "pooled": pooled(found)}
        typer.echo(json.dumps({name: json.loads(table.to_json(orient="records")) for name, table in tables.items()}))
    else:
        typer.echo("\n".join([*left_out, *sentences(found)]))


@app.command()
def model(
    run: Annotated[
        Path | None, typer.Argument(metavar="[RUN]", help="Whose variants are switches (default: results/threads/web).")
    ] = None,
    cores: Annotated[str, typer.Option(metavar="LIST", help="Core counts to predict.")] = "64,128",
    demand: Annotated[int, typer.Option(min=1, metavar="CPS", help="Of a fleet: connections per second.")] = 1_000_000,
    as_json: Annotated[bool, typer.Option("--json", help="For programs; writes no files.")] = False,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Default: results/<date>-model.")] = None,
    yes: Yes = False,
) -> None:
    """Say what more cores would give, what limits them, and how far off the model was where it was judged.

    python3 lab.py model --cores 32,64
    """
    import json

    from analysis.model.answers import fitted_curves
    from analysis.model.tables import judgement
    from analysis.model.write import answers, switches_of, write
    from bench.collection import results_in

    counts, measured = _counts(cores), switches_of(run or ROOT / "results" / "threads" / "web")
    fits = fitted_curves()
    found = answers(fits, counts, demand, measured)
    if as_json:
        typer.echo(json.dumps({name: json.loads(table.to_json(orient="records")) for name, table in found.items()}))
        return
    typer.echo(judgement(found["held-out"]))
    with results_in(out, "model") as directory:
        typer.echo(write(directory, fits, found, demand))


def _counts(cores: str) -> list[int]:
    from bench.experiment import UsageError

    try:
        counts = sorted({int(part) for part in _split([cores])})
    except ValueError:
        counts = [0]
    if counts[0] < 1 or counts[-1] > MOST_CORES:
        raise UsageError(f"--cores {cores!r}: give a list of numbers from 1 to {MOST_CORES}, such as 64,128")
    return counts


def _conclusion(regressions: int) -> str:
    return f"{regressions} regression{'s' if regressions != 1 else ''}"


@dataclass(frozen=True)
class Guest:
    """The options of guest, in the order of its --help."""

    command: Annotated[list[str] | None, typer.Argument(metavar="-- VERB OR COMMAND", help="Default: a shell.")] = None
    kernel: Annotated[str, typer.Option(metavar="K", help="6.1, 6.12, newest, a .deb or a vmlinuz.")] = "6.1"
    cpus: Annotated[int, typer.Option(min=1, max=255, metavar="N", help="Of the guest.")] = 8
    threads: Annotated[int, typer.Option(min=1, metavar="N", help="Sibling threads of each core.")] = 1
    memory: Annotated[str, typer.Option(metavar="SIZE", help="Of the guest.")] = "2G"
    accel: Annotated[
        str | None, typer.Option(metavar="A", help="kvm, or tcg: emulation (default: kvm if it works).")
    ] = None
    net: Annotated[bool, typer.Option("--net", help="eth0 with a queue for each CPU; namespace client reaches it.")] = (
        False
    )
    seconds: Annotated[int | None, typer.Option("--seconds", min=1, metavar="S", help="That the command may take.")] = (
        None
    )
    boot_seconds: Annotated[int, typer.Option("--boot-seconds", min=1, metavar="S", help="That the boot may take.")] = (
        180
    )
    results: Annotated[Path | None, typer.Option(metavar="DIR", help="All that comes back (default: results/).")] = None
    yes: Yes = False


@app.command()
@taking(Guest)
def guest(asked: Guest) -> None:
    """Run a verb of the lab, a command, or a shell in a guest under QEMU, on this machine's files.

    Its files are gone when it ends, except those in the results folder.

    python3 lab.py guest --kernel 6.12 -- sweep --quick --workload nginx
    """
    from bench.collection import results_folder
    from fastsocket.build import build
    from guest.machine import Machine, Task, check, run

    machine = Machine(
        asked.kernel,
        asked.cpus,
        asked.threads,
        asked.memory,
        asked.accel,
        asked.net,
        asked.seconds,
        asked.boot_seconds,
    )
    check(machine)
    _need_root()
    _remove_leftovers()
    build()
    task = Task(_in_guest(asked.command or []), results_folder(asked.results), needs=(ROOT,))
    raise typer.Exit(run(machine, task))


def _in_guest(command: list[str]) -> list[str]:
    verbs = {verb.name or getattr(verb.callback, "__name__", "") for verb in app.registered_commands}
    return [sys.executable, str(ROOT / "lab.py"), "--yes", *command] if verbs & {*command[:1]} else command


@app.command()
def pack(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="To write, such as fastsocket-lab.tar.")],
    yes: Yes = False,
) -> None:
    """Write one file for a machine without a network: the lab, built, with its libraries and Debian packages.

    There: tar xf FILE && cd fastsocket-lab && sudo python3 lab.py --yes sweep
    """
    from bench.experiment import UsageError
    from fastsocket.build import build
    from setup.pack import pack as packed
    from workloads import generator

    if not file.parent.is_dir() or file.is_dir():
        raise UsageError(f"cannot write {file}: name a file in a folder that is there")
    build()
    generator.build()
    typer.echo(f"{file} is for {packed(file.absolute())}")


@app.command()
def clean(yes: Yes = False) -> None:
    """Remove what a killed run left on this machine, and nothing else."""
    _need_root()
    if not _remove_leftovers():
        typer.echo("nothing to clean")


def _remove_leftovers() -> bool:
    from topologies.tag import leftovers, remove

    found = leftovers()
    for leftover in found:
        remove(leftover)
        typer.echo(f"removed what a killed run left: {len(leftover.pids)} processes, {leftover.directory}")
    policy = bootstrap.remove_policy()
    if policy:
        typer.echo(f"removed {bootstrap.POLICY}, left by an installation that was killed")
    return bool(found) or policy


@app.command("test", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def run_tests(
    context: typer.Context,
    coverage: Annotated[bool, typer.Option("--coverage", help="Say which branches of the lab's Python ran.")] = False,
    yes: Yes = False,
) -> None:
    """Build everything and run the tests. What follows goes to pytest: lab.py test -k nginx.

    All tests take two rounds: first those that may run beside others, then those that need the CPUs for themselves.
    What failed is tried once more at the end: a virtual machine may have stood still for a moment.
    """
    from fastsocket.build import build
    from workloads import generator

    build()
    generator.build()
    measured = ["coverage", "run", "-m"] if coverage else []
    pytest = partial(_python_module, *measured, "pytest")
    status = pytest(*context.args) if context.args else _all_tests(pytest)
    if coverage:
        _python_module("coverage", "combine", "--quiet")
        _python_module("coverage", "report")
    raise typer.Exit(status)


def _all_tests(pytest: Callable[..., int]) -> int:
    beside_others = pytest("-n", "3", "--dist", "worksteal", "-m", "not alone", "--cache-clear", LONGEST)
    status = max(beside_others, pytest("-m", "alone", LONGEST))
    if status == SOME_TESTS_FAILED:
        typer.echo("what failed runs once more:")
        status = pytest("--last-failed")
    return status


def _python_module(*words: str) -> int:
    return subprocess.run([sys.executable, "-m", *words], cwd=ROOT).returncode


def main() -> int:
    end_once()
    try:
        return app(sys.argv[1:] or ["--help"], standalone_mode=False, prog_name="python3 lab.py") or 0
    except typer.TyperException as error:
        return _complain(error.format_message(), 2)
    except KeyboardInterrupt:
        return _complain("interrupted", INTERRUPTED)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        return _complain(f"the disk is full: {error.filename or 'a file of the run'} was not written", 2)
    except Exception as error:
        if not hasattr(error, "exit_status"):  # the lab's own errors have one; any other is a defect: show a traceback
            raise
        return _complain(_with_remedy(error), error.exit_status)


def _with_remedy(error: Exception) -> str:
    from fastsocket.libbpf import BpfError

    if not isinstance(error, BpfError):
        return str(error)
    return "; ".join(filter(None, [error.reason, error.cause.value, "python3 lab.py doctor says more"]))


def _complain(message: str, status: int) -> int:
    print(f"lab.py: {message}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
