"""The numbers of a measured server as tables on the terminal, for people."""

from collections.abc import Iterable, Iterator

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from fastsocket.measure.measured import Connections, Costs, Measured, Watching
from fastsocket.measure.rules import Advice, Verdict

MOST_WORKERS = 32  # how many workers a table shows
VERDICTS: dict[Verdict, tuple[str, str]] = {  # the words for each verdict, and their style
    "try": ("try it", "green"),
    "no": ("no", "default"),
    "on": ("is on", "default"),
    "unknown": ("not known", "yellow"),
}


def report(measured: Measured, advices: Iterable[Advice]) -> RenderableType:
    """The report: numbers, advice, and what could not be measured."""
    others = measured.processes - 1
    more = f" and {others} more" if others else ""
    return Group(
        Text(f"{measured.name}, process {measured.pid}{more}, over {measured.seconds:.1f} s", style="bold"),
        *(Padding(part, (0, 0, 1, 2), expand=False) for part in _parts(measured)),
        Text("What each switch could bring", style="bold"),
        Padding(_advice(advices), (0, 0, 0, 2), expand=False),
        *(Text(remark, style="yellow") for remark in _remarks(measured)),
    )


def _table(*columns: str, numbers: Iterable[str] = (), heading: bool = True) -> Table:
    """A table without lines. columns: columns of text. numbers: columns of numbers, which follow."""
    table = Table(*columns, box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim", show_header=heading)
    for name in numbers:
        table.add_column(name, justify="right")
    for column in table.columns:
        column.overflow = "fold"
    return table


def _parts(measured: Measured) -> Iterator[Table]:
    tables = (_summary, _queues, _workers, _cpus, _devices)
    yield from (table for table in (make(measured) for make in tables) if table.row_count)


def _summary(measured: Measured) -> Table:
    namespace, table = measured.namespace, _table("", "", heading=False)
    for name, connections in (("accepted", measured.passive), ("opened", measured.active)):
        for label, words in zip((name, "  read locally"), _connections(connections)):
            table.add_row(label, words)
    table.add_row(
        "namespace",
        f"{namespace.accepted_per_second:.0f} accepted/s, {namespace.opened_per_second:.0f} opened/s, "
        f"{namespace.dropped} dropped",
    )
    table.add_row("", f"{namespace.time_wait} connections in TIME_WAIT")
    if measured.costs:
        for label, words in zip((f"per {measured.costs.unit}", "", "  of the machine"), _costs(measured.costs)):
            table.add_row(label, words)
    table.add_row("others", f"took {measured.others_percent:.0f} % of the server's CPUs")
    table.add_row("this watch", _watching(measured.watching))
    table.add_row("  its start", f"took {measured.watching.start_seconds:.2f} s of CPU time")
    table.add_row("threads", f"had no CPU for {measured.waited_percent:.0f} % of the time in which they were ready")
    return table


def _connections(of: Connections | None) -> Iterator[str]:
    if of is None:
        yield "not seen without BPF"
        return
    each = f", {of.reads_each:.1f} reads each" if of.reads_each is not None else ""
    yield f"{of.per_second:.0f}/s{each}"
    if of.local_percent is not None:
        first = f", {of.first_local_percent:.1f} % of first reads" if of.first_local_percent is not None else ""
        yield f"{of.local_percent:.1f} % of reads{first}"


def _costs(costs: Costs) -> Iterator[str]:
    yield f"{costs.user_us:.1f} µs in user mode, {costs.system_us:.1f} µs in the kernel"
    yield ", ".join(
        f"{number:.{digits}f} {name}"
        for number, digits, name in (
            (costs.calls, 1, "system calls"),
            (costs.contentions, 2, "lock contentions"),
            (costs.segments, 1, "packets"),
        )
        if number is not None
    )
    yield f"{costs.softirq_us:.1f} µs in softirq, {costs.interrupts:.2f} interrupts between CPUs"


def _watching(watching: Watching) -> str:
    bpf = f", and its BPF programs {watching.bpf_percent:.1f} %" if watching.bpf_percent is not None else ""
    return f"took {watching.command_percent:.1f} % of them{bpf}"


def _queues(measured: Measured) -> Table:
    table = _table("accept queue", numbers=("listeners", "mean", "most", "limit", "dropped"))
    for queue in measured.queues:
        numbers = (queue.listeners, f"{queue.mean:.1f}", queue.most, queue.limit, queue.dropped)
        table.add_row(queue.address, *map(str, numbers))
    return table


def _workers(measured: Measured) -> Table:
    table = _table("thread", "may run on", "ran on", numbers=("CPU time", "waited", "connections"))
    shown = sorted(measured.workers, key=lambda worker: -worker.cpu_percent)[:MOST_WORKERS]
    for worker in sorted(shown, key=lambda worker: (worker.process, worker.thread)):
        who = str(worker.process) if worker.process == worker.thread else f"{worker.process}/{worker.thread}"
        ran_on = ",".join(map(str, worker.ran_on)) or "-"
        percents = (worker.cpu_percent, worker.waited_percent, worker.connections_percent)
        table.add_row(who, worker.may_run_on or "-", ran_on, *map(_percent, percents))
    if left := len(measured.workers) - len(shown):
        table.add_row(f"and {left} more")
    return table


def _cpus(measured: Measured) -> Table:
    table = _table("CPU", numbers=("packets", "softirq", "busy", "stolen"))
    for cpu in measured.cpus:
        percents = (cpu.packets_percent, cpu.softirq_percent, cpu.busy_percent, cpu.stolen_percent)
        table.add_row(str(cpu.cpu), *map(_percent, percents))
    return table


def _devices(measured: Measured) -> Table:
    table = _table("device", "receive queues", "RPS", "RFS", "fastsocket nic")
    for steering in measured.devices:
        switches = ("on" if on else "off" for on in (steering.rps, steering.rfs))
        table.add_row(steering.device, str(steering.queues), *switches, steering.nic)
    return table


def _percent(value: float | None) -> str:
    return f"{value:.1f} %" if value is not None else "-"


def _advice(advices: Iterable[Advice]) -> RenderableType:
    table = _table("", "", "", heading=False)
    for one in advices:
        word, style = VERDICTS[one.verdict]
        table.add_row(one.switch, Text(word, style=style), f"{one.says} ({one.source})")
        if one.verdict == "try":
            table.add_row("", "", f"Against it: {one.against} ({one.against_source})")
            table.add_row("", "", f"How: {one.how}")
    return table


def _remarks(measured: Measured) -> Iterator[str]:
    for one in measured.missing:
        yield f"not measured: {one.what}: {one.why}: {one.remedy}"
    if measured.changed:
        yield "threads came or went meanwhile: those that ended took their numbers along"
