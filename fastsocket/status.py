"""Show the running servers as tables on the terminal, for people."""

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from fastsocket.counters import COUNTER_NAMES, COUNTERS
from fastsocket.servers import Server
from fastsocket.shared_memory import Adopter, CpuCounters, Listener, LocalListener

# Column headings are broken into several lines, because there are many columns.
HEADINGS = {name: name.replace("_", "\n") for name in COUNTER_NAMES}
OF_WHAT_MAY_BE_OFF = [counter.name for counter in COUNTERS if counter.component != "listen_table"]


def tables(servers: list[Server]) -> RenderableType:
    """Tables of each server's listeners, CPU by CPU, and of its counters."""
    return Group(*(_server(server) for server in servers)) if servers else Text("no server runs with libfsocket.so")


def _server(server: Server) -> RenderableType:
    others = len(server.processes) - 1
    more = f" and {others} more" if others else ""
    parts = [part for listener in server.listeners for part in _listener(listener)] + [_counters(server.counters)]
    return Group(
        Text(f"{server.command}, process {server.pid}{more}", style="bold"),
        *(Padding(part, (0, 0, 0, 2), expand=False) for part in parts),
    )


def _table(*columns: str) -> Table:
    """A table without lines. columns: columns of text; columns of numbers are added later."""
    return Table(*columns, box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")


def _listener(listener: Listener) -> Iterator[RenderableType]:
    ailment = Text(f"  not accelerated: {listener.why_not}" if listener.why_not else "", style="yellow")
    yield Text.assemble(str(listener), ailment)
    if listener.balance not in ("on", "off"):
        yield Text(f"  not balanced: {listener.balance} (it takes CAP_BPF, CAP_NET_ADMIN and no seccomp filter)")
    if listener.cpus:
        table = _table("CPU", "adopters", "last waited for")
        for cpu in listener.cpus:
            table.add_row(str(cpu.cpu), _adopters(cpu.adopters), _waited(cpu))
        yield table


def _adopters(adopters: list[Adopter]) -> str:
    """The threads that accept, in one line. A main thread is shown by its process id, another one after a slash."""
    names = [str(who.process) if who.process == who.thread else f"{who.process}/{who.thread}" for who in adopters]
    return ", ".join(names) or "nobody"


def _waited(cpu: LocalListener) -> str:
    return f"{cpu.tended_ms_ago} ms ago" if cpu.tended_ms_ago is not None else "-"


def _counters(counters: list[CpuCounters]) -> RenderableType:
    """The counters as a table, without CPUs that counted nothing and without columns of parts that are off."""
    shown = [
        name for name in COUNTER_NAMES if name not in OF_WHAT_MAY_BE_OFF or any(getattr(cpu, name) for cpu in counters)
    ]
    table = _table("CPU")
    table.columns[0].vertical = "bottom"
    for name in shown:
        table.add_column(HEADINGS[name], justify="right", vertical="bottom")
    for cpu in counters:
        counted = [getattr(cpu, name) for name in shown]
        if any(counted):
            table.add_row(str(cpu.cpu), *map(str, counted))
    return table if table.row_count else Text("nothing counted yet", style="dim")
