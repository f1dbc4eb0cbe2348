"""The part of a run that a figure shows."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from analysis.results import Result
from records.run import FigureSpec, Run
from records.trials import CONTROL, Trial


@dataclass(frozen=True)
class View:
    """A figure's specification, and the part of a run's result that the figure shows."""

    spec: FigureSpec
    result: Result

    @property
    def run(self) -> Run:
        return self.result.run

    @property
    def directory(self) -> Path:
        return self.result.directory

    @property
    def workloads(self) -> list[str]:
        return [name for name in self.run.options.workloads if name in (self.spec.workloads or [name])]

    @property
    def variants(self) -> list[str]:
        return [name for name in self.run.options.variants if name in (self.spec.variants or [name])]

    @property
    def arms(self) -> list[str]:
        """The variants and the A/A control, in the order in which figures show them."""
        return [*self.variants, CONTROL]

    @property
    def cores(self) -> list[int]:
        return sorted(self.run.options.cores)

    @cached_property
    def trials(self) -> list[Trial]:
        return [trial for trial in self.result.trials if trial.workload in self.workloads and trial.arm in self.arms]

    @cached_property
    def summary(self) -> pd.DataFrame:
        rows = self.result.summary
        return rows[rows.workload.isin(self.workloads) & rows.variant.isin(self.arms)]

    def label(self, arm: str) -> str:
        return self.spec.labels.get(arm, arm)

    def shared(self, shown: list[int] | None = None) -> str:
        """A note on the core counts at which the load generator shares CPUs with the server; empty if it shares none.

        shown: the core counts that the figure shows; None: all.
        """
        placements = [one for one in self.run.placements if one.shared and one.cores in (shown or self.cores)]
        cores = [f"{placement.cores}" for placement in placements]
        return f"At {', '.join(cores)} cores the load generator shares CPUs with the server." if cores else ""
