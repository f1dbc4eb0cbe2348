"""The picture of a report's first screen: what Fastsocket changed, against the same server with one shared listener."""

from io import BytesIO
from typing import Any

import matplotlib
import pandas as pd

from analysis.estimates import counted
from analysis.figures import forest
from analysis.figures.style import STYLE, Look
from analysis.summary import Answers, called
from analysis.verdicts import HIGHER, LOWER
from records.metrics import COST, METRICS, P99, THROUGHPUT

LARGEST_ONLY = (COST, P99)  # at fewer cores they are in the report's sentences where they differ
_BETTER: Look = {"color": "#018571", "marker": "D", "markersize": 5, "linestyle": "none"}
_WORSE: Look = {**_BETTER, "color": "#a6611a", "marker": "X", "markersize": 7}
_LEVEL: Look = {**_BETTER, "color": "0.45", "marker": "o"}


def draw_overview(answers: Answers) -> bytes:
    """As SVG."""
    most = {workload: max(cores for name, cores, *_ in answers if name == workload) for workload, *_ in answers}
    rows = pd.DataFrame(
        [
            (called(row.workload), _label(row, at_rate), row.ratio, row.low, row.high, float("nan"), _look(row))
            for (workload, cores, at_rate, metric), row in answers.items()
            if metric in THROUGHPUT or (metric in LARGEST_ONLY and cores == most[workload])
        ],
        columns=["group", "label", "ratio", "low", "high", "published", "look"],
    )
    with matplotlib.rc_context(STYLE):
        figure, _ = forest.draw(
            rows, "With Fastsocket, over without", "ratio, 95 % intervals. Green: better; brown ×: worse; grey: unclear"
        )
        drawn = BytesIO()
        figure.savefig(drawn, format="svg", metadata={"Date": None, "Creator": None})
    return drawn.getvalue()


def _label(row: Any, at_rate: bool) -> str:
    metric, where = METRICS[row.metric], f"{called(row.workload)}, {counted(row.cores)}"
    return f"{where}{', same load' if at_rate else ''}: {metric.called or metric.heading}"


def _look(row: Any) -> Look:
    if row.verdict not in (HIGHER, LOWER):
        return _LEVEL
    return _BETTER if (row.verdict == HIGHER) == (METRICS[row.metric].better == "higher") else _WORSE
