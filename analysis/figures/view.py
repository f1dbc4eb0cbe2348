"""The part of a run that a figure shows."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from analysis.estimates import CONTROL
from bench.record import FigureSpec, Run, Trial


@dataclass(frozen=True)
class View:
    """A figure's specification over a run, its trials, and their summary (analysis.estimates.estimate)."""

    spec: FigureSpec
    run: Run
    all_trials: list[Trial]
    whole_summary: pd.DataFrame
    directory: Path  # of the run

    @property
    def workloads(self) -> list[str]:
        return [name for name in self.run.options.workloads if name in (self.spec.workloads or [name])]

    @property
    def variants(self) -> list[str]:
        return [name for name in self.run.options.variants if name in (self.spec.variants or [name])]

    @property
    def arms(self) -> list[str]:
        """In the order in which they are shown."""
        return [*self.variants, CONTROL]

    @property
    def cores(self) -> list[int]:
        return sorted(self.run.options.cores)

    @cached_property
    def trials(self) -> list[Trial]:
        return [trial for trial in self.all_trials if trial.workload in self.workloads and trial.arm in self.arms]

    @cached_property
    def summary(self) -> pd.DataFrame:
        rows = self.whole_summary
        return rows[rows.workload.isin(self.workloads) & rows.variant.isin(self.arms)]

    def label(self, arm: str) -> str:
        return self.spec.labels.get(arm, arm)

    def shared(self) -> str:
        """A note on where the load generator takes CPU time from the server, empty if nowhere."""
        cores = [f"{placement.cores}" for placement in self.run.placements if placement.shared]
        return f"At {', '.join(cores)} cores the load generator shares CPUs with the server." if cores else ""
