"""The tables of a run: files for programs (summary.csv, trials.parquet) and files for readers (tables/)."""

from collections import Counter
from typing import Any

import pandas as pd
from great_tables import GT

from analysis.emulated import is_emulated
from analysis.estimates import each, throughput
from analysis.results import SUMMARY, Result
from analysis.verdicts import EXPLORATORY, PRIMARY
from analysis.words import NOT_AVAILABLE, called, counted, place
from records.metrics import COSTS, METRICS, TABULATED, THROUGHPUT
from records.run import Run
from records.trials import BASE, CONTROL, CpuUse, Trial

CPU_STATES = [field for field in CpuUse.model_fields if field != "cpu"]


def write_tables(result: Result) -> None:
    """Write all tables of a run.

    For programs: summary.csv and trials.parquet. For readers: tables/summary and tables/cpu_by_core as .csv and .md,
    tables/comparisons.csv, and tables/verdicts.csv with the role of each ratio.
    """
    directory, run, trials = result.directory, result.run, result.trials
    folder = directory / "tables"
    folder.mkdir(parents=True, exist_ok=True)
    result.summary.to_csv(directory / SUMMARY, index=False)
    flat(trials).to_parquet(directory / "trials.parquet", index=False)
    readable, cpu = readable_summary(run, result.summary), cpu_by_core(run, trials)
    readable.to_csv(folder / "summary.csv", index=False)
    cpu.to_csv(folder / "cpu_by_core.csv", index=False)
    notes = "".join(f"\n- {NOT_AVAILABLE}: {note}" for note in missing(run, trials))
    (folder / "summary.md").write_text(markdown(readable) + notes + "\n")
    (folder / "cpu_by_core.md").write_text(markdown(readable_cpu(cpu)))
    result.compared.to_csv(folder / "comparisons.csv", index=False)
    result.verdicts.to_csv(folder / "verdicts.csv", index=False)


def flat(trials: list[Trial]) -> pd.DataFrame:
    """A row per trial in the order in which they ran, with a column per metric; a metric that a trial lacks is null."""
    plain = [
        "index",
        "block",
        "workload",
        "variant",
        "control",
        "arm",
        "cores",
        "testbed",
        "started",
        "seconds",
        "load_cpu_seconds",
    ]
    return pd.DataFrame(
        [
            {
                **{name: getattr(trial, name) for name in plain},
                "spoilt": "; ".join(trial.spoilt),
                "failed": trial.failed,
                **trial.metrics,
            }
            for trial in trials
        ]
    )


def arms(run: Run) -> list[str]:
    """The arms of a run in the order in which tables and figures show them."""
    return [*run.options.variants, CONTROL]


def missing(run: Run, trials: list[Trial]) -> list[str]:
    """A sentence, with the reason, for each metric that the machine, or some of the trials, could not give."""
    everywhere = [f"{_named(metric)}: {reason}" for metric, reason in run.unavailable.items()]
    lacking = Counter(
        (metric, reason)
        for trial in trials
        for metric, reason in trial.unavailable.items()
        if metric not in run.unavailable
    )
    return everywhere + [
        f"{_named(metric)} in {count} of {len(trials)} trials: {reason}" for (metric, reason), count in lacking.items()
    ]


def _named(metric: str) -> str:
    return METRICS[metric].called if metric in METRICS else metric


def failures(run: Run, trials: list[Trial]) -> list[str]:
    """A sentence for each setting, arm and reason of failed trials, and for each workload that was left out after
    failures."""
    failed = Counter((trial.workload, trial.cores, trial.arm, trial.failed) for trial in trials if trial.failed)
    return [
        f"{place(workload, cores)} as {arm}: {counted(count, 'trial')} failed, and no number has any of it: {why}."
        for (workload, cores, arm, why), count in failed.items()
    ] + [
        f"The rest of {called(workload)} was left out, because one trial after the other failed: {why}."
        for workload, why in run.left_out.items()
    ]


def readable_summary(run: Run, summary: pd.DataFrame) -> pd.DataFrame:
    """The summary for readers: a row per workload, core count and arm, all cells formatted. A ratio without an interval
    is not shown."""
    served = throughput(summary)
    rate = " / ".join(sorted({metric.upper() for metric in served.metric}))
    if is_emulated(run):
        served = summary.drop_duplicates(["workload", "variant", "cores"])
    known = {
        (row.workload, row.cores, row.variant, row.metric): row.estimate
        for row in each(summary)
        if row.metric not in run.unavailable
    }
    return pd.DataFrame(
        [
            {
                "workload": row.workload,
                "cores": str(row.cores),
                "variant": row.variant,
                **({} if is_emulated(run) or run.options.observes else {"ratio to base": _over_base(run, row)}),
                **({} if is_emulated(run) else {rate: _with_interval(row)}),
                **{
                    metric.heading: _value(
                        known.get((row.workload, row.cores, row.variant, metric.name)), metric.digits
                    )
                    for metric in map(METRICS.__getitem__, TABULATED)
                    if not (is_emulated(run) and metric.timed)
                },
            }
            for row in each(_in_order(run, served))
        ]
    )


def _over_base(run: Run, row: Any) -> str:
    return "fixed" if run.options.at_rate(row.workload) and row.variant != BASE else ratio(row)


def ratio(row: Any) -> str:
    """The ratio to base of a summary's row, as a text with its interval; without an interval, "no interval"."""
    if row.variant == BASE:
        return "reference"
    if pd.isna(row.ratio_low):
        return "no interval"
    return f"{row.ratio_to_base:.3f} ({row.ratio_low:.3f}–{row.ratio_high:.3f})"


def readable_verdicts(run: Run, verdicts: pd.DataFrame) -> pd.DataFrame:
    """The verdicts for readers, all cells formatted: those on throughput, cost and the primary outcome that have an
    interval.

    At a given rate throughput is left out, because all variants serve the same. A run that observes its trials asks for
    neither throughput nor cost, so it has only the primary outcome.
    """
    same = verdicts.metric.isin(THROUGHPUT) & verdicts.workload.map(run.options.at_rate).astype(bool)
    asked = verdicts.metric.isin([*THROUGHPUT, *COSTS]) & ~same & (not run.options.observes)
    shown = _in_order(run, verdicts[asked | (verdicts.role == PRIMARY)].dropna(subset="low"))
    return pd.DataFrame(
        [
            (
                row.workload,
                str(row.cores),
                f"{row.variant} / {row.over}",
                METRICS[row.metric].called,
                f"{row.ratio:.3f} ({row.low:.3f}–{row.high:.3f})",
                row.verdict,
                f"{100 * row.seen_from:.1f} %",
                row.role if row.role == EXPLORATORY else f"{row.role}, p {probability(row.p_adjusted)}",
            )
            for row in each(shown)
        ],
        columns=["workload", "cores", "variant", "metric", "ratio", "verdict", "seen from", "role"],
    )


def probability(p: float) -> str:
    """A probability as a text with three decimals, or "below 0.001": more digits would mean nothing."""
    return f"{p:.3f}" if p >= 0.001 else "below 0.001"


def cpu_by_core(run: Run, trials: list[Trial]) -> pd.DataFrame:
    """A row per workload, arm, core count and CPU: the mean percentage of time in each state over the trials."""
    uses = pd.DataFrame(
        [
            {"workload": trial.workload, "variant": trial.arm, "cores": trial.cores, **use.model_dump()}
            for trial in trials
            for use in trial.cpu
        ],
        columns=["workload", "variant", "cores", "cpu", *CPU_STATES],
    )
    seconds = uses[CPU_STATES]
    uses[CPU_STATES] = 100 * seconds.div(seconds.sum(axis=1), axis=0)
    means = uses.groupby(["workload", "variant", "cores", "cpu"], as_index=False)[CPU_STATES].mean()
    return _in_order(run, means).rename(columns={state: f"{state}_percent" for state in CPU_STATES})


def readable_cpu(cpu: pd.DataFrame) -> pd.DataFrame:
    """cpu_by_core() with all cells formatted."""
    states = {f"{state}_percent": f"{state}, %" for state in CPU_STATES}
    return (
        cpu.astype({"cores": str, "cpu": str})
        .rename(columns=states)
        .assign(**{heading: cpu[column].map("{:.1f}".format) for column, heading in states.items()})
    )


def html(table: pd.DataFrame, name: str) -> str:
    """The HTML of a formatted table for the report. name: the id of the HTML table."""
    words = [column for column in table.columns if not table[column].str.contains(r"^[\d.,]+(?: |%|$)").any()]
    if "workload" in table:
        table = table.assign(workload=table.workload.map(called))
    return GT(table, id=name).cols_align("right").cols_align("left", columns=words).as_raw_html()


def _in_order(run: Run, rows: pd.DataFrame) -> pd.DataFrame:
    order = {"workload": run.options.workloads, "variant": arms(run)}
    by = ["workload", "cores", "variant", *(["cpu"] if "cpu" in rows else [])]
    return rows.sort_values(
        by, key=lambda column: column.map(order[column.name].index) if column.name in order else column
    )


def _value(value: float | None, decimals: int) -> str:
    return NOT_AVAILABLE if value is None else f"{value:,.{decimals}f}"


def _with_interval(row: Any) -> str:
    interval = "" if pd.isna(row.ci_low) else f" ({_rounded(row.ci_low)}–{_rounded(row.ci_high)})"
    return f"{_rounded(row.estimate)}{interval}"


def _rounded(value: float) -> str:
    """A value rounded to three significant digits, as a text: no level is known more precisely."""
    return f"{float(f'{value:.3g}'):,.0f}"


def markdown(table: pd.DataFrame) -> str:
    """The Markdown of a table whose cells are texts."""
    lines = [list(table.columns), ["---"] * len(table.columns), *table.to_numpy().tolist()]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
