"""The life of a run, from its directory to its conclusion, for one experiment or several in turn."""

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
RESULTS = "FASTSOCKET_LAB_RESULTS"  # in the environment: where runs without --out go, instead of results/
INTERRUPTED = 130


class Live(Protocol):
    """A view of a run that is being measured."""

    def add(self, trial: Trial) -> None:
        """Show one more trial."""


@dataclass(frozen=True)
class Collector:
    """Measures experiments. What becomes of the trials is told to callbacks, because measuring knows no analysis."""

    watch: Callable[[Run, Path], AbstractContextManager[Live]]  # while a run is measured into a directory
    conclude: Callable[[Path], None]  # when all runs of a directory are measured
    began: float  # time.monotonic() at the start of the command
    resume: bool = False
    measure: Callable[[Path, Run, float, Callable[[Trial], None]], None] = measure  # here, or by a cluster
    said: frozenset[str] = frozenset()  # the options that the caller gave; a run that goes on must agree with them

    def collect(self, planned: dict[str, Options], directory: Path) -> int:
        """Measure one experiment into the directory, or several into folders of it. Returns the exit status.

        Raises WorkloadError where nothing could be measured.
        """
        if len(planned) == 1:
            (options,) = planned.values()
            return self._collect_one(directory, options, is_part=False)
        return self._collect_parts(directory, planned)

    def _collect_parts(self, directory: Path, planned: dict[str, Options]) -> int:
        """A part that cannot be measured does not end the others, unless no part can be measured."""
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
        """An experiment that this machine cannot run has its place in the report all the same."""
        if not (self.resume and is_run(directory)):
            write_run(directory, new_run(directory, options).model_copy(update={"complete": True}))
        self.conclude(directory)

    def _opened(self, directory: Path, options: Options, is_part: bool) -> Run:
        """If a collection is resumed, some of its parts may not have begun."""
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
    """Remove a run without a measured trial, and no file of anybody else."""
    for name in (RUN, TRIALS):
        (directory / name).unlink(missing_ok=True)
    if not any(directory.iterdir()):
        directory.rmdir()


@contextmanager
def results_in(out: Path | None, name: str) -> Iterator[Path]:
    """The directory of a run: the one asked for, or a new one. All that is made in it belongs to its folder's owner."""
    directory = out or new_directory(name)
    with owned_like_its_folder(directory):
        try:
            yield directory
        finally:
            if not out:
                with suppress(OSError):  # not empty: there are results in it
                    directory.rmdir()


def new_directory(name: str) -> Path:
    """Named after the time, and numbered where two runs begin in the same second."""
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
    """Where runs go if they do not say where."""
    folder = chosen or Path(os.environ.get(RESULTS) or ROOT / "results")
    if (chosen or RESULTS in os.environ) and not folder.is_dir():
        raise UsageError(
            f"there is no {folder} to keep results in: mount a folder of yours there with -v "
            f'"$PWD/results:{folder}", or name another directory with --out'
        )
    return folder
