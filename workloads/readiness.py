"""Whether a server waits for connections: the kernel tells which epolls hold a listener."""

from itertools import takewhile
from pathlib import Path

from fastsocket.processes import epolls_with, family

TCP_LISTEN = "0A"


def listening_inodes(port: int, pid: int | str = "self") -> set[int]:
    """The inodes of the listeners on a port in the network namespace of a process (proc(5), /proc/PID/net/tcp)."""
    listeners = _listeners(Path(f"/proc/{pid}/net/tcp")) + _listeners(Path(f"/proc/{pid}/net/tcp6"))
    return {int(fields[9]) for fields in listeners if int(fields[1].rpartition(":")[2], 16) == port}


def _listeners(table: Path) -> list[list[str]]:
    """The lines of listeners in a table of sockets, split into fields.

    Listeners come first (Documentation/networking/proc_net_tcp.rst), so reading stops behind them: after a load the
    table has many thousands of sockets in TIME_WAIT.
    """
    with table.open() as lines:
        next(lines)  # the heading
        return list(takewhile(lambda fields: fields[3] == TCP_LISTEN, map(str.split, lines)))


def watchers(pid: int, port: int) -> int:
    """How many epolls of a process and its descendants hold a listener on this port."""
    try:
        return epolls_with(listening_inodes(port, pid), family(pid))
    except FileNotFoundError:  # it has ended
        return 0
