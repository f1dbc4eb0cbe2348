"""The life of a run, from making its directory to drawing its conclusion, for one experiment or for several in turn."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Protocol

from bench.experiment import UsageError
from bench.sweep import is_measured, is_run, measure, new_run, resumed_run
from fastsocket.build import build
from records.run import RUN, Options, Run, write_run
from records.trials import TRIALS, Trial
from setup.ownership import owned_like_its_folder
from workloads import generator
from workloads.process import WorkloadError

ROOT = Path(__file__).resolve().parent.parent
RESULTS = "FASTSOCKET_LAB_RESULTS"  # environment variable: where runs without --out go, instead of results/
INTERRUPTED = 130


class Live(Protocol):
    """A view of a run that is being measured."""

    def add(self, trial: Trial) -> None:
        """Show one more trial."""


@dataclass(frozen=True)
class Collector:
    """Measures experiments. It gives trials and finished runs to callbacks: bench/ does not import analysis/."""

    watch: Callable[[Run, Path], AbstractContextManager[Live]]  # shows a run while it is measured into a directory
    conclude: Callable[[Path], None]  # called when all runs of a directory are measured
    began: float  # time.monotonic() at the start of the command
    resume: bool = False
    measure: Callable[[Path, Run, float, Callable[[Trial], None]], None] = measure  # on this machine, or by a cluster
    said: frozenset[str] = frozenset()  # the options that the caller gave; a run that goes on must agree with them

    def collect(self, planned: dict[str, Options], directory: Path) -> int:
        """Measure one experiment into the directory, or several into folders in it. Returns the exit status.

        Raises WorkloadError if nothing could be measured.
        """
        if len(planned) == 1:
            (options,) = planned.values()
            return self._collect_one(directory, options, is_part=False)
        return self._collect_parts(directory, planned)

    def _collect_parts(self, directory: Path, planned: dict[str, Options]) -> int:
        """Measure several experiments. If one cannot be measured, the others go on. If none can, WorkloadError is
        raised."""
        failed = {}
        for part, options in planned.items():
            try:
                if status := self._collect_one(directory / part, options, is_part=True):
                    return status
            except WorkloadError as error:
                failed[part] = error
        if failed and not any(is_measured(directory / part) for part in planned):
            raise failed.popitem()[1]
        for part, why_not in failed.items():
            self._leave_out(directory / part, planned[part].model_copy(update={"why_not": str(why_not)}))
        self.conclude(directory)
        return 0

    def _collect_one(self, directory: Path, options: Options, is_part: bool) -> int:
        if options.why_not:
            self._leave_out(directory, options)
            return 0
        began = time.monotonic() if is_part else self.began
        return self._measure(directory, self._opened(directory, options, is_part), began)

    def _leave_out(self, directory: Path, options: Options) -> None:
        """Record an experiment that this machine cannot run, so that the report has a place for it all the same."""
        if not (self.resume and is_run(directory)):
            write_run(directory, new_run(directory, options).model_copy(update={"complete": True}))
        self.conclude(directory)

    def _opened(self, directory: Path, options: Options, is_part: bool) -> Run:
        """The run to go on with, or a new one. When several experiments are resumed, some may not have begun yet."""
        if self.resume and (is_run(directory) or not is_part):
            return resumed_run(directory, options, self.said)
        return new_run(directory, options)

    def _measure(self, directory: Path, run: Run, began: float) -> int:
        status = 0
        try:
            build()
            generator.build()
            with self.watch(run, directory) as live:
                self.measure(directory, run, began, live.add)
        except KeyboardInterrupt:
            status = INTERRUPTED
        finally:
            if not is_measured(directory):
                _remove_empty_run(directory)
        if is_measured(directory):
            self.conclude(directory)
        return status


def _remove_empty_run(directory: Path) -> None:
    """Remove the files of a run without a measured trial, and its directory unless that holds other files."""
    for name in (RUN, TRIALS):
        (directory / name).unlink(missing_ok=True)
    if not any(directory.iterdir()):
        directory.rmdir()


@contextmanager
def results_in(out: Path | None, name: str) -> Iterator[Path]:
    """The directory of a run: the one asked for, or a new one, which is removed at the end if it stayed empty.

    All files that are made in it will belong to the owner of its folder (setup/ownership.py).
    """
    directory = out or new_directory(name)
    with owned_like_its_folder(directory):
        try:
            yield directory
        finally:
            if not out:
                with suppress(OSError):  # not empty: there are results in it
                    directory.rmdir()


def new_directory(name: str) -> Path:
    """Make a directory named by the time and the run's name, with a number if another run began in the same second.

    Raises UsageError if it cannot be made.
    """
    folder = results_folder()
    began = f"{datetime.now():%Y-%m-%d-%H%M%S}-{name}"
    for number in count(1):
        directory = folder / (f"{began}-{number}" if number > 1 else began)
        try:
            with owned_like_its_folder(directory):
                directory.mkdir(parents=True)
            break
        except FileExistsError:
            continue
        except OSError as error:
            raise UsageError(f"cannot write to {folder}: {error.strerror}; choose another --out") from error
    return directory


def results_folder(chosen: Path | None = None) -> Path:
    """The folder for runs without --out: the chosen one, or that of the variable RESULTS, or results/.

    Raises UsageError if the chosen folder or the variable's folder does not exist.
    """
    named = os.environ.get(RESULTS)
    folder = chosen or Path(named or ROOT / "results")
    if (chosen or named) and not folder.is_dir():
        raise UsageError(
            f"there is no {folder} to keep results in: mount a folder of yours there with -v "
            f'"$PWD/results:{folder}", or name another directory with --out'
        )
    return folder
