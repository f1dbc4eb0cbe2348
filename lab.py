#!/usr/bin/env python3
"""Fastsocket Lab: does per-core TCP listening pay on this machine?

python3 lab.py sweep     measure servers with and without Fastsocket, write a report
python3 lab.py profile   where a server's CPU time is spent: list, flame graph, speedscope
python3 lab.py doctor    what this machine can do, what is missing, how to get it
python3 lab.py figures   draw the figures of a run again
python3 lab.py report    write the tables, figures and report of a run again
python3 lab.py guest     run a verb, a command or a shell in a guest with other CPUs and another kernel
python3 lab.py clean     remove what a killed run left, and nothing else
python3 lab.py test      build everything and run the tests

On a bare Debian 12 the first call installs what it needs: say --yes, or answer its question. Each verb has --help.
"""

import signal
import sys
import time
from pathlib import Path

BEGAN = time.monotonic()

from setup import bootstrap  # noqa: E402  (the clock starts first)

if __name__ == "__main__":
    if "doctor" in sys.argv[1:2] and "--help" not in sys.argv:  # it answers on a bare machine, too
        from setup import doctor

        sys.exit(doctor.main(sys.argv[2:]))
    bootstrap.ensure(sys.argv[1:], __doc__)

import os  # noqa: E402
import shutil  # noqa: E402
import subprocess  # noqa: E402
from contextlib import contextmanager, suppress  # noqa: E402
from datetime import datetime  # noqa: E402
from itertools import count  # noqa: E402
from typing import Annotated, Optional  # noqa: E402

import typer  # noqa: E402

ROOT = Path(__file__).resolve().parent
RESULTS = "FASTSOCKET_LAB_RESULTS"  # in the environment: where runs without --out go, instead of results/
INTERRUPTED = 130

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
# bootstrap has acted on it by the time that typer sees it: here it is only to be known, and explained in --help.
Yes = Annotated[bool, typer.Option("--yes", help="Install what is missing without asking.")]
RunDirectory = Annotated[Path, typer.Argument(metavar="DIR", help="The directory of a run.")]


class MachineError(Exception):
    """This machine cannot do what was asked; the message says what is missing and how to get it."""

    exit_status = 3


def _split(values: Optional[list[str]]) -> list[str]:
    return [part for value in values or [] for part in value.split(",") if part]


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


# The options of sweep, in the order of its --help.
ExperimentName = Annotated[str, typer.Argument(metavar="[EXPERIMENT]", help="A file in experiments/, without .toml.")]
Workloads = Annotated[Optional[list[str]], typer.Option(metavar="W", help="Only these servers, such as nginx.")]
Variants = Annotated[Optional[list[str]], typer.Option(metavar="V", help="Only these, such as base,fastsocket.")]
Cores = Annotated[Optional[str], typer.Option(metavar="LIST", help="Core counts, such as 1,2 (default: up to all).")]
Blocks = Annotated[Optional[int], typer.Option(min=1, metavar="N", help="ABBA blocks: more narrow the intervals.")]
Seconds = Annotated[Optional[int], typer.Option(min=1, metavar="S", help="Seconds of load per trial.")]
Quick = Annotated[bool, typer.Option("--quick", help="Shorter: a first look in a few minutes.")]
Paper = Annotated[bool, typer.Option("--paper", help="Longer: figures for publication.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the schedule and its time, run nothing.")]
Out = Annotated[Optional[Path], typer.Option(metavar="DIR", help="Default: results/<date>-<experiment>.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on where the run in --out stopped.")]


@app.command()
def sweep(
    experiment: ExperimentName = "scalability",
    workload: Workloads = None,
    variant: Variants = None,
    cores: Cores = None,
    blocks: Blocks = None,
    seconds: Seconds = None,
    quick: Quick = False,
    paper: Paper = False,
    dry_run: DryRun = False,
    out: Out = None,
    resume: Resume = False,
    yes: Yes = False,
) -> None:
    """Measure servers as base, latest and fastsocket over core counts, and write a report.

    python3 lab.py sweep --quick --workload nginx
    """
    from bench import experiment as experiments

    if quick and paper:
        raise experiments.UsageError("--quick and --paper exclude each other: choose one")
    if resume and not out:
        raise experiments.UsageError("--resume goes on with a run: name its directory with --out")
    length = "quick" if quick else "paper" if paper else "full"
    if (workload or variant) and len(experiments.parts(experiment)) > 1:
        raise experiments.UsageError(
            f"{experiment} is several experiments: --workload and --variant go with one, such "
            f"as {experiments.parts(experiment)[0]}"
        )
    planned = {
        part: experiments.plan(
            part,
            length,
            workloads=_split(workload),
            variants=_split(variant),
            cores=cores,
            blocks=blocks,
            seconds=seconds,
        )
        for part in experiments.parts(experiment)
    }
    if dry_run:
        _print_schedules(list(planned.values()))
        return
    _need_root()
    _remove_leftovers()
    with _results_in(out, experiment) as directory:
        if len(planned) > 1:
            status = _measure_parts(directory, planned, resume)
        else:
            status = _measure_part(directory, *planned.values(), resume, is_part=False)
    raise typer.Exit(status)


def _measure_parts(directory: Path, planned: dict, resume: bool) -> int:
    """Returns the exit status. A part of which nothing can be measured costs that part, unless it is so of all."""
    from analysis.report import write_all
    from bench.sweep import is_measured
    from workloads.process import WorkloadError

    failed = {}
    for part, options in planned.items():
        try:
            if status := _measure_part(directory / part, options, resume, is_part=True):
                return status
        except WorkloadError as error:
            failed[part] = error
    if failed and not any(is_measured(directory / part) for part in planned):
        raise failed.popitem()[1]
    for part, error in failed.items():
        _leave_out(directory / part, planned[part].model_copy(update={"why_not": str(error)}), resume)
    typer.echo(f"all of it: {write_all(directory)}")
    return 0


def _measure_part(directory: Path, options, resume: bool, is_part: bool) -> int:
    """Returns the exit status."""
    if options.why_not:
        _leave_out(directory, options, resume)
        return 0
    return _measure(directory, _opened_run(directory, options, resume, is_part))


@contextmanager
def _results_in(out: Optional[Path], name: str):
    """The directory of a run: the one asked for, or a new one. What is made in it belongs to its folder's owner."""
    from setup.ownership import owned_like_its_folder

    directory = out or _new_directory(name)
    with owned_like_its_folder(directory):
        try:
            yield directory
        finally:
            if not out:
                with suppress(OSError):  # not empty: there are results in it
                    directory.rmdir()


def _new_directory(name: str) -> Path:
    """Named after the time, and numbered where two runs begin in the same second."""
    from bench.experiment import UsageError
    from setup.ownership import owned_like_its_folder

    folder = _results_folder()
    began = f"{datetime.now():%Y-%m-%d-%H%M%S}-{name}"
    for number in count(1):
        directory = folder / (f"{began}-{number}" if number > 1 else began)
        try:
            with owned_like_its_folder(directory):
                directory.mkdir(parents=True)
            return directory
        except FileExistsError:
            continue
        except OSError as error:
            raise UsageError(f"cannot write to {folder}: {error.strerror}; choose another --out") from error


def _results_folder(chosen: Optional[Path] = None) -> Path:
    """Where runs go that do not say where."""
    from bench.experiment import UsageError

    folder = chosen or Path(os.environ.get(RESULTS) or ROOT / "results")
    if (chosen or RESULTS in os.environ) and not folder.is_dir():
        raise UsageError(
            f"there is no {folder} to keep results in: mount a folder of yours there with -v "
            f'"$PWD/results:{folder}", or name another directory with --out'
        )
    return folder


def _leave_out(directory: Path, options, resume: bool) -> None:
    """What this machine cannot run has its place in the report all the same."""
    from analysis.report import write_all
    from bench.record import write_run
    from bench.sweep import is_run, new_run

    if not (resume and is_run(directory)):
        write_run(directory, new_run(directory, options).model_copy(update={"complete": True}))
    typer.echo(f"{options.experiment} is not available here: {options.why_not}. {write_all(directory)}")


def _opened_run(directory: Path, options, resume: bool, is_part: bool):
    """Of a collection that is resumed, some parts may not have begun yet."""
    from bench.sweep import is_run, new_run, resumed_run

    if resume and (is_run(directory) or not is_part):
        return resumed_run(directory)
    return new_run(directory, options)


def _print_schedules(planned: list) -> None:
    from bench.schedule import expected_seconds, schedule

    trials, seconds = 0, 0.0
    for options in planned:
        typer.echo(f"{options.experiment}, {options.seconds} s per trial")
        slots = schedule(options)
        for slot in slots:
            arm = "control" if slot.control else slot.variant
            typer.echo(f"{slot.index:5}  block {slot.block:3}  {slot.workload} {arm} on {slot.cores} cores")
        trials, seconds = trials + len(slots), seconds + expected_seconds(slots, options)
    minutes, rest = divmod(round(seconds), 60)
    typer.echo(f"{trials} trials, about {minutes} min {rest} s")


def _measure(directory: Path, run) -> int:
    """Returns the exit status. Raises what ended it, WorkloadError where nothing could be measured."""
    from analysis.live import LiveTable
    from bench.sweep import is_measured, measure
    from fastsocket.build import build
    from workloads import generator

    status = 0
    try:
        build()
        generator.build()
        with LiveTable(run, directory) as live:
            measure(directory, run, BEGAN, live.add)
    except KeyboardInterrupt:
        status = INTERRUPTED
    finally:
        if not is_measured(directory):
            _remove_empty_run(directory)
    if is_measured(directory):
        _conclude(directory)
    return status


def _remove_empty_run(directory: Path) -> None:
    """A run without a measured trial is no run: leave no trace of it, but nothing of anybody else's either."""
    from bench.record import RUN, TRIALS

    for name in (RUN, TRIALS):
        (directory / name).unlink(missing_ok=True)
    if not any(directory.iterdir()):
        directory.rmdir()


def _conclude(directory: Path) -> None:
    from analysis.live import print_outcome
    from analysis.report import write_all

    report_path = write_all(directory)
    print_outcome(directory, report_path, time.monotonic() - BEGAN)


@app.command()
def profile(
    workload: Annotated[str, typer.Argument(metavar="WORKLOAD", help="A server, such as nginx.")],
    variant: Annotated[str, typer.Option(metavar="V", help="Such as base, latest or fastsocket.")] = "fastsocket",
    cores: Annotated[Optional[str], typer.Option(metavar="N", help="Of the server (default: all).")] = None,
    seconds: Annotated[int, typer.Option(min=1, metavar="S", help="Of load, in each of two trials.")] = 5,
    out: Annotated[Optional[Path], typer.Option(metavar="DIR", help="Default: results/<date>-profile.")] = None,
    yes: Yes = False,
) -> None:
    """Say where the CPU time of a server is spent: top functions, flame graph, speedscope file.

    python3 lab.py profile haproxy --variant fastsocket
    """
    from analysis.profile.flat import top
    from bench import experiment as experiments

    options = experiments.plan(
        "profile", "full", workloads=[workload], variants=[variant], cores=cores, blocks=1, seconds=seconds
    )
    _need_root()
    _remove_leftovers()
    with _results_in(out, "profile") as directory:
        status = _measure(directory, _opened_run(directory, options, resume=False, is_part=False))
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
def figures(
    directory: RunDirectory,
    only: Annotated[Optional[str], typer.Option(metavar="ID", help="Just this figure.")] = None,
    yes: Yes = False,
) -> None:
    """Draw the figures of a run again."""
    from analysis.figures import draw_stored
    from bench.record import runs_in
    from setup.ownership import owned_like_its_folder

    with owned_like_its_folder(directory):
        for path in draw_stored(runs_in(directory), only):
            typer.echo(path)


@app.command()
def report(directory: RunDirectory, yes: Yes = False) -> None:
    """Write the tables, figures and report of a run again."""
    from analysis.report import write_all
    from setup.ownership import owned_like_its_folder

    with owned_like_its_folder(directory):
        typer.echo(write_all(directory))


# The options of guest, in the order of its --help.
Command = Annotated[Optional[list[str]], typer.Argument(metavar="-- VERB OR COMMAND", help="Default: a shell.")]
GuestKernel = Annotated[str, typer.Option(metavar="K", help="6.1, 6.12, newest, a .deb or a vmlinuz.")]
GuestCpus = Annotated[int, typer.Option(min=1, max=255, metavar="N", help="Of the guest.")]
Threads = Annotated[int, typer.Option(min=1, metavar="N", help="Sibling threads of each core.")]
Memory = Annotated[str, typer.Option(metavar="SIZE", help="Of the guest.")]
Accel = Annotated[Optional[str], typer.Option(metavar="A", help="kvm, or tcg: emulation (default: kvm if it works).")]
Net = Annotated[bool, typer.Option("--net", help="eth0 with a queue for each CPU; namespace client reaches it.")]
Limit = Annotated[Optional[int], typer.Option("--seconds", min=1, metavar="S", help="That the command may take.")]
BootLimit = Annotated[int, typer.Option("--boot-seconds", min=1, metavar="S", help="That the boot may take.")]
Results = Annotated[Optional[Path], typer.Option(metavar="DIR", help="All that comes back (default: results/).")]


@app.command()
def guest(
    command: Command = None,
    kernel: GuestKernel = "6.1",
    cpus: GuestCpus = 8,
    threads: Threads = 1,
    memory: Memory = "2G",
    accel: Accel = None,
    net: Net = False,
    seconds: Limit = None,
    boot_seconds: BootLimit = 180,
    results: Results = None,
    yes: Yes = False,
) -> None:
    """Run a verb of the lab, a command, or a shell in a guest under QEMU, on this machine's files.

    What it writes is gone with it, but for what is in the results folder.

    python3 lab.py guest --kernel 6.12 -- sweep --quick --workload nginx
    """
    from fastsocket.build import build
    from guest.machine import Machine, Task, check, run

    machine = Machine(kernel, cpus, threads, memory, accel, net, seconds, boot_seconds)
    check(machine)
    _need_root()
    _remove_leftovers()
    build()
    task = Task(_in_guest(command or []), _results_folder(results), needs=(ROOT,))
    raise typer.Exit(run(machine, task))


def _in_guest(command: list[str]) -> list[str]:
    verbs = {verb.name or verb.callback.__name__ for verb in app.registered_commands}
    return [sys.executable, str(ROOT / "lab.py"), "--yes", *command] if verbs & {*command[:1]} else command


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


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def test(context: typer.Context, yes: Yes = False) -> None:
    """Build everything and run the tests. What follows goes to pytest: lab.py test -k nginx."""
    from fastsocket.build import build

    build()
    raise typer.Exit(subprocess.run([sys.executable, "-m", "pytest", *context.args], cwd=ROOT).returncode)


def _interrupt_once(signum, frame) -> None:
    """The first Ctrl-C or SIGTERM ends the run; while everything is taken down further ones are not heard."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def main() -> int:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt_once)
    try:
        return app(sys.argv[1:] or ["--help"], standalone_mode=False, prog_name="python3 lab.py") or 0
    except typer.TyperException as error:
        return _complain(error.format_message(), 2)
    except KeyboardInterrupt:
        return _complain("interrupted", INTERRUPTED)
    except Exception as error:
        if not hasattr(error, "exit_status"):  # ours say how to end; any other is a defect, and shows where
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
