"""Where each CPU's time went at the largest core count, beside what top showed in the slides."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures.style import note
from analysis.figures.view import View
from analysis.tables import cpu_by_core
from analysis.words import called
from records.trials import CONTROL

PUBLISHED = Path(__file__).parent.parent / "published" / "cpu_by_core.csv"

_STATES = {
    "user": "0.2",
    "system_time": "#6a3d9a",
    "softirq": "#cab2d6",
    "idle": "0.92",
}  # state -> colour, from dark to light; no variant has these colours


def draw(view: View) -> tuple[Figure, pd.DataFrame]:
    """Axes for each workload and variant, and for the published numbers: percentages of each CPU's time."""
    shown = pd.concat([_ours(view), _theirs()])
    panels = list(shown.groupby(["workload", "system"], sort=False))
    figure = Figure(figsize=(1.2 + 3.2 * len(panels), 3.8), layout="constrained")
    for axes, ((workload, system), cpus) in zip(figure.subplots(1, len(panels), sharey=True, squeeze=False)[0], panels):
        axes.set_title(f"{called(str(workload))}\n{system}", loc="left")
        _stack(axes, cpus)
    figure.axes[0].set_ylabel("% of the CPU's time")
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles[::-1], labels[::-1], loc="outside right upper")
    note(
        figure,
        "Ours: all that ran on these CPUs, load generator and backend, too.",
        "The emulated NIC's threads count as system, not as softirq." if view.run.options.nic == "threads" else "",
        view.shared(view.cores[-1:]),
    )
    return figure, shown


def _stack(axes: Axes, cpus: pd.DataFrame) -> None:
    bottom, places = np.zeros(len(cpus)), range(len(cpus))
    for state, colour in _STATES.items():
        axes.bar(
            places,
            cpus[state],
            bottom=bottom,
            color=colour,
            edgecolor="white",
            linewidth=0.5,
            width=0.8,
            label=state.removesuffix("_time"),
        )
        bottom = bottom + cpus[state].to_numpy()
    axes.set_xticks(places, [f"{cpu}" for cpu in cpus.cpu])
    axes.set_xlabel("CPU")
    axes.set_ylim(0, 100)
    axes.grid(visible=False, axis="x")


def _ours(view: View) -> pd.DataFrame:
    """What this run measured: a row per workload, variant and CPU, in percent.

    Hardware interrupts count as softirq, and waiting for a disk counts as idle. Time that the hypervisor took (steal)
    is left out.
    """
    cpu = cpu_by_core(view.run, view.trials)
    cpu = cpu[(cpu.variant != CONTROL) & (cpu.cores == view.cores[-1])]
    return pd.DataFrame(
        {
            "workload": cpu.workload,
            "system": cpu.variant.map(view.label),
            "cpu": cpu.cpu,
            "user": cpu.user_percent,
            "system_time": cpu.system_percent,
            "softirq": cpu.softirq_percent + cpu.irq_percent,
            "idle": cpu.idle_percent + cpu.iowait_percent,
            "source": "measured here",
        }
    )


def _theirs() -> pd.DataFrame:
    return pd.read_csv(PUBLISHED).assign(workload="the slides' HAProxy")
