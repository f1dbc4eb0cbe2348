"""How busy the CPUs were over a day of rising and falling load: the mean of all CPUs, and the busiest CPU."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from analysis.estimates import each
from analysis.figures.effects import claimed
from analysis.figures.style import curve, look, note
from analysis.figures.view import View
from analysis.summary import OURS
from analysis.tables import cpu_by_core
from analysis.words import called
from records.metrics import METRICS
from records.trials import Trial

_PANELS = {"mean": "mean of all CPUs", "worst": "busiest CPU"}
_OVER_TRIALS = {"": "mean", "_low": "min", "_high": "max"}


def draw(view: View) -> tuple[Figure, pd.DataFrame]:
    """A row of axes per workload, with the offered load in the background."""
    rows = _rows(view)
    figure = Figure(figsize=(9, 3.9 * len(view.workloads)), layout="constrained")
    for workload, line in zip(view.workloads, figure.subplots(len(view.workloads), len(_PANELS), squeeze=False)):
        of_workload = rows[rows.workload == workload]
        for (column, title), axes in zip(_PANELS.items(), line):
            axes.set_title(f"{called(workload)}: {title}", loc="left")
            _busy(axes, view, of_workload, column)
        _offered(line[0], of_workload)
    line[-1].legend()
    hour = f"An hour of this day is two trials of {view.run.options.seconds} s of each variant, which took turns."
    hour += " Bars reach from the one to the other."
    note(figure, *_savings(view), hour, "The load generator's time is in all of it.", view.shared())
    return figure, rows


def _busy(axes: Axes, view: View, rows: pd.DataFrame, column: str) -> None:
    for variant in view.variants:
        of_variant = rows[rows.variant == variant]
        low, high = of_variant[f"{column}_low"], of_variant[f"{column}_high"]
        curve(axes, look(view, variant), of_variant.hour, of_variant[column], low, high, label=view.label(variant))
    axes.set_xticks(range(0, 25, 6), [f"{hour}:00" for hour in range(0, 25, 6)])
    axes.set_ylim(0, 100)
    axes.yaxis.set_major_formatter(PercentFormatter(decimals=0, symbol=" %"))
    axes.set_ylabel("busy")


def _offered(axes: Axes, rows: pd.DataFrame) -> None:
    if rows.empty:
        return
    load = rows.groupby("hour").rate.first()
    peak = load.max()
    axes.fill_between(load.index, 30 * load / peak, color="0.9", zorder=0)
    axes.annotate(f"offered load, up to {peak:,.0f}/s", (load.idxmax(), 3), ha="center", fontsize="small", color="0.35")


def _savings(view: View) -> list[str]:
    summary = view.summary
    rows = summary[(summary.metric == view.run.options.cost) & (summary.variant == OURS)].dropna(subset="ratio_low")
    fewer, more = (claimed(f"production: {what}").value for what in ("average CPU utilisation", "capacity"))
    published = f"Published: {-fewer:.0f} points less of the CPUs' time, capacity +{more:.0f} %, of a proxy on 8 cores."
    return [
        f"Over the day a request costs fastsocket {row.ratio_to_base:.3f} ({row.ratio_low:.3f}–{row.ratio_high:.3f}) "
        f"times base's, in {METRICS[view.run.options.cost].called}. {published}"
        for row in each(rows)
    ]


def _rows(view: View) -> pd.DataFrame:
    """A row per workload, variant and block: the hour, the rate in 1/s, and how busy all CPUs (mean) and the busiest
    CPU (worst) were in percent, each with its least and greatest value over the block's trials."""
    options = view.run.options
    trials = pd.DataFrame(
        [_busy_cpus(view, trial) for trial in view.trials if not trial.control and not trial.failed],
        columns=["workload", "variant", "block", "rate", *_PANELS],
    )
    found = trials.groupby(["workload", "variant", "block"], as_index=False).agg(
        rate=("rate", "first"),
        **{column + name: (column, how) for column in _PANELS for name, how in _OVER_TRIALS.items()},
    )
    return found.assign(hour=found.block.map(options.hour)).drop(columns="block").sort_values("hour", kind="stable")


def _busy_cpus(view: View, trial: Trial) -> tuple[object, ...]:
    cpu = cpu_by_core(view.run, [trial])
    busy = 100 - cpu.idle_percent - cpu.iowait_percent - cpu.steal_percent
    return trial.workload, trial.variant, trial.block, trial.rate, busy.mean(), busy.max()
