"""What runs say, for readers who know neither the statistics nor the kernel. Every sentence is computed."""

import pandas as pd

from analysis.estimates import BASE, COST, control_is_off, counted, place, throughput
from bench.record import Run, Trial

OURS = "fastsocket"
_LOCAL = {
    "passive_local_percent": "connections that clients opened",
    "active_local_percent": "connections that the server opened itself",
}


def plain_summary(runs: list[tuple[Run, list[Trial], pd.DataFrame]]) -> list[str]:
    """Sentences on all runs together, each with its trials and summary; none where there is nothing to say.

    Of several runs that can answer the same question, the one with most blocks does.
    """
    measured = sorted((run for run in runs if run[1]), key=lambda run: -run[0].options.blocks)
    workloads = list(dict.fromkeys(workload for run, _, _ in measured for workload in run.options.workloads))
    sentences = []
    for workload in workloads:
        sentences += _first(_served(run, summary, workload) for run, _, summary in measured)
        sentences += _first(_cost(run, summary, workload) for run, _, summary in measured)
        sentences += _first(_local(run, summary, workload) for run, _, summary in measured)
    return (
        sentences
        + _controls(measured)
        + [
            f"{run.options.experiment} is not available here: {run.options.why_not}."
            for run, _, _ in runs
            if run.options.why_not
        ]
    )


def _first(answers) -> list[str]:
    return next(([answer] for answer in answers if answer), [])


def _row(summary: pd.DataFrame, workload: str, cores: int, variant: str, *metrics: str):
    """The row of one of these metrics, or None."""
    rows = summary[
        (summary.workload == workload)
        & (summary.cores == cores)
        & (summary.variant == variant)
        & summary.metric.isin(metrics)
    ]
    return None if rows.empty else next(rows.itertuples())


def _served(run: Run, summary: pd.DataFrame, workload: str) -> str | None:
    """Only where servers took all they could: at a given rate they all serve the same."""
    if workload in run.options.rates or run.options.observes:
        return None
    cores = max(run.options.cores)
    row = _row(throughput(summary), workload, cores, OURS, "cps", "rps")
    if row is None or pd.isna(row.ratio_low):
        return None
    return f"{place(workload, cores)} answered {_more(row)} with Fastsocket than without.{_doubt(summary, workload, cores)}"


def _cost(run: Run, summary: pd.DataFrame, workload: str) -> str | None:
    if workload not in run.options.rates or run.options.observes:
        return None
    cores = max(run.options.cores)
    row = _row(summary, workload, cores, OURS, COST)
    if row is None or pd.isna(row.ratio_low):
        return None
    return f"At the same load, {place(workload, cores)} needed {_more(row, 'CPU time')} with Fastsocket than without."


def _doubt(summary: pd.DataFrame, workload: str, cores: int) -> str:
    off = any(sentence.startswith(f"{place(workload, cores)}:") for sentence in control_is_off(summary))
    return " But there the server differed from itself, too, so trust it less." if off else ""


def _more(row, thing: str = "requests") -> str:
    """A ratio as a change in percent, as far as its interval allows to speak of one."""
    low, high = 100 * (row.ratio_low - 1), 100 * (row.ratio_high - 1)
    if low > 0:
        return f"{100 * (row.ratio_to_base - 1):.1f} % more {thing} (95 % interval {low:.1f} to {high:.1f} %)"
    fewer = "less" if thing == "CPU time" else "fewer"
    if high < 0:
        return f"{100 * (1 - row.ratio_to_base):.1f} % {fewer} {thing} (95 % interval {-high:.1f} to {-low:.1f} %)"
    return f"neither clearly more nor {fewer} {thing} (between {-low:.1f} % {fewer} and {high:.1f} % more)"


def _local(run: Run, summary: pd.DataFrame, workload: str) -> str | None:
    cores = max(run.options.cores)
    said = []
    for metric, kind in _LOCAL.items():
        base, ours = (_row(summary, workload, cores, variant, metric) for variant in (BASE, OURS))
        if base and ours:
            said.append(f"{ours.estimate:.1f} % instead of {base.estimate:.1f} % of the data of {kind}")
    if cores == 1 or not said:
        return None
    return f"With Fastsocket, {place(workload, cores)} read {' and '.join(said)} on the core that had received it."


def _controls(measured: list[tuple[Run, list[Trial], pd.DataFrame]]) -> list[str]:
    """How far to trust all that: equal arms that came out different, although nothing differed."""
    compared = sum(
        len(throughput(summary).query("variant == 'control'").dropna(subset="ratio_low")) for _, _, summary in measured
    )
    off = sum(len(control_is_off(summary)) for _, _, summary in measured)
    if not compared:
        return []
    return [
        f"Of {counted(compared, 'comparison')} of a server with itself, which must find no difference, {off} found one; "
        f"by chance it would be about {compared / 20:.0f}."
    ]
