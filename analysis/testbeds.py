"""What the report says of a run that a cluster measured: its testbeds, the numbers of each one, and lost blocks."""

from collections import Counter
from collections.abc import Iterator

import pandas as pd

from analysis.circumstances import differing
from analysis.estimates import each, estimate, outcome
from analysis.statistics import MIN_CLUSTERS
from analysis.words import counted, place
from records.metrics import METRICS
from records.run import Run
from records.trials import BASE, Trial

COLUMNS = ["testbed", "where", "variant", "metric", f"over {BASE}", "95 % interval", "blocks"]


def warnings(run: Run, trials: list[Trial]) -> Iterator[str]:
    """What a reader has to know of the testbeds and of lost blocks: a sentence for each warning."""
    measured = sorted({trial.testbed for trial in trials if trial.testbed})
    if 1 < len(measured) < MIN_CLUSTERS:
        yield f"{counted(len(measured), 'testbed')} tell too little of how testbeds differ: no ratio has an interval."
    for host, count in Counter(map(_host, measured)).items():
        if count > 1:
            yield f"{count} testbeds were on {host} at once, and disturbed each other."
    if apart := differing([run.model_copy(update=dict(run.testbeds[name])) for name in measured]):
        yield f"The testbeds are not all the same: they differ in {', '.join(apart)}."
    for lost in run.lost_blocks:
        yield f"Block {lost.block} was begun once more, with nothing kept of the attempt on {lost.host}: {lost.why}."


def _host(testbed: str) -> str:
    return testbed.rpartition("-")[0]


def method(trials: list[Trial]) -> list[str]:
    """A sentence on how the numbers of several testbeds become one number; empty for a run on one."""
    count = len({trial.testbed for trial in trials})
    said = (
        f"{count} testbeds shared the blocks, each block whole on one of them. A ratio to base is the mean of the "
        "testbeds' own ratios, each testbed being one value, and its interval is Student's over the testbeds."
    )
    return [said] if count > 1 else []


def by_testbed(run: Run, trials: list[Trial]) -> pd.DataFrame:
    """Each testbed's own ratios to base in the run's outcome, all cells formatted. Empty for a run on one testbed."""
    names = sorted({trial.testbed for trial in trials})
    rows = [
        (
            *(name, place(row.workload, row.cores), row.variant, METRICS[row.metric].heading),
            *(f"{row.ratio_to_base:.3f}", _interval(row.ratio_low, row.ratio_high), str(row.n)),
        )
        for name in names[: len(names) * (len(names) > 1)]
        for row in each(outcome(run, estimate([trial for trial in trials if trial.testbed == name])))
        if row.variant != BASE
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def _interval(low: float, high: float) -> str:
    return "none" if low != low else f"{low:.3f}–{high:.3f}"
