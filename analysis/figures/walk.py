"""The slides' walk-through of a connection, drawn from traced connections: which core did which step."""

from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import binomtest

from analysis.estimates import each
from analysis.figures.style import Look, look, note, say
from analysis.figures.view import View
from fastsocket.steering.ports import core_of_port, port_mask
from records.run import Placement, Run
from records.trials import BASE
from records.walk import ACTIVE_STEPS, APPLICATION_STEP, PASSIVE_STEPS, read_walk, walk_path

_STEPS = {  # step -> what happens there, as the slides say, and whether in softirq or for the application
    3: ("(2–4) the SYN comes in, the NIC chooses a core", "softirq"),
    5: ("(5, 6) half connection, SYN ACK goes out", "softirq"),
    7: ("(7) the ACK comes in", "softirq"),
    8: ("(8) established, into the accept queue", "softirq"),
    9: ("(9) the application accepts and reads", "application"),
    10: ("(10, 11) the application connects to the backend", "application"),
    12: ("(12) the SYN goes out", "application"),
    13: ("(13) the SYN ACK comes in, the NIC chooses a core", "softirq"),
    14: ("(14) established", "softirq"),
    15: ("(15) the ACK goes out", "softirq"),
}
_MARKERS = {"softirq": "s", "application": "o"}
_COLUMNS = ["variant", "trial", "connection", "step", "cpu", "us", "source_port"]


def draw_passive(view: View) -> tuple[Figure, pd.DataFrame]:
    """Steps 1 to 9: from the SYN to the read."""
    return _draw_walks(view, PASSIVE_STEPS, "(1) listen() was before.", _by_chance(view))


def draw_active(view: View) -> tuple[Figure, pd.DataFrame]:
    """Steps 10 to 15: the proxy's own connection to the backend."""
    return _draw_walks(view, ACTIVE_STEPS)


def draw_delivery(view: View) -> tuple[Figure, pd.DataFrame]:
    """Where the NIC delivers the SYN of passive and the SYN ACK of active connections, by the application's core."""
    walks = traced_walks(view)
    kinds = {"passive": 3, "active": 13}
    figure = Figure(figsize=(2 + 3.4 * len(view.variants), 7.2), layout="constrained")
    figure.suptitle(view.spec.title, x=0.02, ha="left", fontweight="bold")
    grid = figure.subplots(len(kinds), len(view.variants), squeeze=False)
    rows = []
    for row, (kind, step) in enumerate(kinds.items()):
        for column, variant in enumerate(view.variants):
            told = _matrix(walks[walks.variant == variant], step)
            _draw_matrix(grid[row][column], told, f"{view.label(variant)}, {kind}")
            rows += [(variant, kind, *place, count) for place, count in told.items()]
    note(figure, _hits(view, walks[walks.step == 10]), _counted(walks))
    return figure, pd.DataFrame(rows, columns=["variant", "kind", "application_cpu", "delivered_cpu", "connections"])


def _hits(view: View, chosen: pd.DataFrame) -> str:
    """A sentence for each variant's share of source ports that stand for the CPU that connects.

    chosen: the steps 10 of all walks, in which connect() chooses the port.
    """
    count = _machine_cpus(view.run)
    is_hit = chosen.source_port.map(lambda port: core_of_port(port, count)) == chosen.cpu
    hits = is_hit.groupby(chosen.variant).agg(["sum", "size"])
    said = "; ".join(f"{view.label(name)} {_share(*hits.loc[name])}" for name in view.variants if name in hits.index)
    hashed = f"hash(p) = p & {port_mask(count)} of the proxy's source port is the core that connects"
    return f"{hashed}: {said}; by chance {100 / (port_mask(count) + 1):.0f} %." if said else ""


def _share(count: int, of: int) -> str:
    interval = binomtest(int(count), int(of)).proportion_ci(method="wilson")
    return f"{100 * count / of:.1f} % ({100 * interval.low:.1f}–{100 * interval.high:.1f})"


def _machine_cpus(run: Run) -> int:
    """The number of CPUs by which connect() chose ports. Older runs do not record it: there it is the highest CPU that
    the run used, plus 1."""
    return run.machine_cpus or 1 + max(cpu for placement in run.placements for cpu in _used(placement))


def _used(placement: Placement) -> list[int]:
    return sorted({*placement.server_cpus, *placement.load_cpus})


def traced_walks(view: View) -> pd.DataFrame:
    """A row per step of each traced connection in the view's trials. The A/A control's trials count as base."""
    rows = [
        (trial.variant, trial.index, *step)
        for trial in view.trials
        if (path := Path(walk_path(view.directory, trial.index))).exists() and not trial.failed
        for step in read_walk(path)
    ]
    walks = pd.DataFrame(rows, columns=_COLUMNS)
    return walks[walks.variant.isin(view.variants)]


def _draw_walks(view: View, steps: tuple[int, ...], *said: str) -> tuple[Figure, pd.DataFrame]:
    walks = traced_walks(view)
    figure = Figure(figsize=(5.2 + 3.3 * len(view.variants), 1.8 + 0.55 * len(steps)), layout="constrained")
    figure.suptitle(view.spec.title, x=0.02, ha="left", fontweight="bold")
    rows = []
    for axes, variant in zip(figure.subplots(1, len(view.variants), sharey=True, squeeze=False)[0], view.variants):
        cpus = walks[walks.variant == variant].pivot(index=["trial", "connection"], columns="step", values="cpu")
        cpus = cpus.reindex(columns=steps).dropna().astype(int)
        axes.set_title(view.label(variant), loc="left")
        _lanes(axes, cpus, look(view, variant)["color"], _server_cpus(view, cpus))
        rows += [_local(cpus).assign(variant=variant), _distinct(cpus).assign(variant=variant)]
    figure.axes[0].set_yticks(range(len(steps)), [_STEPS[step][0] for step in steps])
    figure.axes[0].set_ylim(len(steps) - 0.5, -0.5)
    note(
        figure,
        *said,
        "Lines: all walks, as wide as they are common. Circles: the application's own; squares: softirq. "
        "Right: how many of all connections do that step on the application's core, 95 % intervals.",
        _counted(walks),
    )
    return figure, pd.concat(rows)


def _by_chance(view: View) -> str:
    """A sentence on what base's shares would be by chance, and why they may be higher here: the load leaves CPUs
    idle."""
    times = [(use.idle, sum(use.model_dump(exclude={"cpu"}).values())) for trial in view.trials for use in trial.cpu]
    if BASE not in view.variants or not times:
        return ""
    cores, idle = view.cores[-1], sum(idle for idle, _ in times) / sum(whole for _, whole in times)
    return (
        f"By chance base has {100 / cores:.0f} %, as at full speed. Here the CPUs are {100 * idle:.0f} % idle: the "
        "core that took the packet in is awake, and its worker probably comes first more often."
    )


def _server_cpus(view: View, cpus: pd.DataFrame) -> list[int]:
    """The CPUs of the server at the largest core count, and any other CPU on which a step happened."""
    largest = max(view.run.placements, key=lambda placement: placement.cores)
    return sorted({*largest.server_cpus, *map(int, cpus.to_numpy().flat)})


def _local(cpus: pd.DataFrame) -> pd.DataFrame:
    """A row per step: the percentage of connections that do the step on the application's core, with its interval."""
    rows = []
    for step in map(int, cpus.columns if len(cpus) else []):
        same = int((cpus[step] == cpus[APPLICATION_STEP[step]]).sum())
        interval = binomtest(same, len(cpus)).proportion_ci(method="wilson")
        rows.append((step, 100 * same / len(cpus), 100 * interval.low, 100 * interval.high, len(cpus)))
    return pd.DataFrame(rows, columns=["step", "local_percent", "low", "high", "connections"])


def _distinct(cpus: pd.DataFrame) -> pd.DataFrame:
    """A row per walk, the commonest first: its cores step by step, such as 0-0-1-1-1, and how many connections took
    it."""
    walks = Counter("-".join(map(str, walk)) for walk in cpus.itertuples(index=False, name=None))
    commonest = sorted(walks.items(), key=lambda walk: (-walk[1], walk[0]))
    return pd.DataFrame(commonest, columns=["walk", "connections"])


def _lanes(axes: Axes, cpus: pd.DataFrame, colour: Any, shown: list[int]) -> None:
    """Draw a lane for each CPU in shown, in this order; the numbers of the CPUs may have gaps."""
    if cpus.empty:
        say(axes, "No connection of it was traced from end to end.")
        return
    _draw_lines(axes, cpus, colour, shown)
    _draw_marks(axes, cpus, colour, shown)
    for y, row in enumerate(each(_local(cpus))):
        share = f"{row.local_percent:.0f} % ({row.low:.0f}–{row.high:.0f})"
        axes.annotate(share, (1.02, y), xycoords=("axes fraction", "data"), va="center", fontsize="small")
    axes.set_xticks(range(len(shown)), [f"core {cpu}" for cpu in shown])
    axes.set_xlim(-0.5, len(shown) - 0.5)
    axes.grid(visible=False, axis="y")


def _draw_lines(axes: Axes, cpus: pd.DataFrame, colour: Any, shown: list[int]) -> None:
    style: Look = {"color": colour, "alpha": 0.45, "solid_capstyle": "round", "zorder": 2}
    for walk in each(_distinct(cpus)):
        lane = [shown.index(int(cpu)) for cpu in walk.walk.split("-")]
        axes.plot(lane, range(len(lane)), linewidth=max(0.6, 9 * walk.connections / len(cpus)), **style)


def _draw_marks(axes: Axes, cpus: pd.DataFrame, colour: Any, shown: list[int]) -> None:
    style: Look = {"color": colour, "markersize": 8, "markeredgecolor": "white", "zorder": 3}
    for y, step in enumerate(map(int, cpus.columns)):
        for cpu in sorted(cpus[step].unique()):
            axes.plot(shown.index(cpu), y, marker=_MARKERS[_STEPS[step][1]], **style)


def _matrix(walks: pd.DataFrame, step: int) -> Counter[tuple[int, int]]:
    """(the application's core, the core that the packet of this step was delivered to) -> number of connections."""
    wide = walks.pivot(index=["trial", "connection"], columns="step", values="cpu")
    return Counter() if wide.empty else Counter(zip(wide[APPLICATION_STEP[step]], wide[step]))


def _draw_matrix(axes: Axes, told: Counter[tuple[int, int]], title: str) -> None:
    axes.set_title(title, loc="left")
    if not told:
        say(axes, "No connection of it was traced from end to end.")
        return
    cpus, total = sorted({cpu for place in told for cpu in place}), sum(told.values())
    shares = [[told[app, to] / total for to in cpus] for app in cpus]
    axes.imshow(shares, cmap="Greys", vmin=0, vmax=1)
    for y, row in enumerate(shares):
        for x, share in enumerate(row):
            axes.text(x, y, f"{100 * share:.1f} %", ha="center", va="center", color="white" if share > 0.6 else "black")
    axes.set_xticks(range(len(cpus)), [f"{cpu}" for cpu in cpus])
    axes.set_yticks(range(len(cpus)), [f"{cpu}" for cpu in cpus])
    axes.set(xlabel="core that the NIC chose", ylabel="application's core")
    axes.grid(visible=False)


def _counted(walks: pd.DataFrame) -> str:
    traced = walks.drop_duplicates(["variant", "trial", "connection"]).groupby("variant", sort=False).size()
    said = [f"{variant}{' with its control' if variant == BASE else ''} {count}" for variant, count in traced.items()]
    return f"Traced connections: {', '.join(said) or 'none'}."
