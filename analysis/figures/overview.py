"""The picture of a report's first screen: what Fastsocket changes, against base with its one shared listener."""

from io import BytesIO
from typing import Any

import matplotlib
import pandas as pd

from analysis.figures import forest
from analysis.figures.style import FASTSOCKET, STYLE, Look, note
from analysis.summary import Answers
from analysis.verdicts import HIGHER, LOWER
from analysis.words import called, counted
from records.metrics import COST, COSTS, METRICS, P99, SERVER_COST, THROUGHPUT

LARGEST_ONLY = (*COSTS, P99)  # shown at the largest core count alone; at others, sentences have them if they differ
_SHORT = {COST: "CPU per request, less the load's", SERVER_COST: "the server's CPU per request", P99: "p99"}
_BETTER: Look = {"color": FASTSOCKET, "marker": "D", "markersize": 5, "linestyle": "none"}
_WORSE: Look = {**_BETTER, "marker": "X", "markersize": 7}
_UNCLEAR: Look = {**_BETTER, "marker": "o", "markerfacecolor": "none"}
_LOOKS = {"better": _BETTER, "worse": _WORSE, "unclear": _UNCLEAR}


def draw_overview(answers: Answers) -> bytes:
    """Draw the forest plot of these answers. Returns SVG."""
    most = {workload: max(cores for name, cores, *_ in answers if name == workload) for workload, *_ in answers}
    rows = pd.DataFrame(
        [
            (
                *(called(row.workload), _label(row, under), row.ratio, row.low, row.high, float("nan")),
                *(_LOOKS[_word(row)], _word(row)),
            )
            for (workload, cores, under, metric), row in answers.items()
            if metric in THROUGHPUT or (metric in LARGEST_ONLY and cores == most[workload])
        ],
        columns=["group", "label", "ratio", "low", "high", "published", "look", "remark"],
    )
    with matplotlib.rc_context(STYLE):
        figure, _ = forest.draw(rows, "With Fastsocket, over without", "ratio, 95 % intervals")
        note(figure, "unclear: no difference that can be told from chance among so many ratios.")
        drawn = BytesIO()
        figure.savefig(drawn, format="svg", metadata={"Date": None, "Creator": None})
    return drawn.getvalue()


def _label(row: Any, under: str) -> str:
    where = ", ".join(filter(None, [called(row.workload), counted(row.cores), under]))
    return f"{where}: {_SHORT.get(row.metric) or METRICS[row.metric].heading}"


def _word(row: Any) -> str:
    if row.verdict not in (HIGHER, LOWER):
        return "unclear"
    return "better" if (row.verdict == HIGHER) == (METRICS[row.metric].better == "higher") else "worse"
