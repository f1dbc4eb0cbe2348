"""How long a report of many trials takes, and how much memory.

python3 -m analysis.scale [--trials N]

The trials are copies of the reference run's trials, each value changed a little. One report is of the whole run, and
one of a single setting, where each ratio has the most pairs. Figures are drawn with each report.
"""

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from analysis.words import counted
from records.run import Options, read_run, write_run
from records.trials import BASE, TRIALS, Trial, read_trials

LAB = Path(__file__).resolve().parent.parent / "lab.py"
SWEEP = LAB.parent / "results" / "reference" / "scalability"
SPREAD = 0.02  # standard deviation by which the logarithm of a copied value differs from the original


def enlarge(source: Path, directory: Path, count: int, **only: list[str] | list[int]) -> None:
    """Write a run of count trials to the directory, made of copies of the trials of the run in source.

    only: lists of Options, such as workloads; trials of others are not copied.
    """
    run = read_run(source)
    options = run.options.model_copy(update=only)
    known = [trial for trial in read_trials(source) if _is_of(trial, options)]
    blocks, rounds = options.blocks, -(-count // len(known))
    figures = [figure for figure in options.figures if set(options.workloads) >= set(figure.workloads)]
    options = options.model_copy(update={"blocks": blocks * rounds, "figures": figures})
    write_run(directory, run.model_copy(update={"options": options, "planned_trials": count}))
    with open(directory / TRIALS, "w") as file:
        file.writelines(f"{trial.model_dump_json()}\n" for trial in list(_repeated(known, blocks, rounds))[:count])


def _is_of(trial: Trial, options: Options) -> bool:
    return trial.workload in options.workloads and trial.variant in options.variants and trial.cores in options.cores


def _repeated(trials: list[Trial], blocks: int, rounds: int) -> Iterator[Trial]:
    random = np.random.default_rng(1)
    for index in range(len(trials) * rounds):
        number, trial = index // len(trials), trials[index % len(trials)]
        metrics = {name: value * random.lognormal(0, SPREAD) for name, value in trial.metrics.items()}
        yield trial.model_copy(update={"index": index, "block": trial.block + blocks * number, "metrics": metrics})


def taken(directory: Path) -> tuple[float, float]:
    """The seconds that lab.py report takes, and the memory of its largest process in MB."""
    began = time.monotonic()
    report = [sys.executable, str(LAB), "report", str(directory)]
    subprocess.run(report, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=10_000, metavar="N")
    count = parser.parse_args().trials
    one: dict[str, list[str] | list[int]] = {"workloads": ["nginx"], "variants": [BASE, "fastsocket"], "cores": [2]}
    for name, only in (("the whole run", {}), ("one setting", one)):
        with TemporaryDirectory() as directory:
            enlarge(SWEEP, Path(directory), count, **only)
            seconds, megabytes = taken(Path(directory))
        print(f"{counted(count, 'trial')} of {name}: {seconds:.1f} s, {megabytes:.0f} MB")


if __name__ == "__main__":
    main()
