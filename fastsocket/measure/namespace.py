"""The TCP counters of a network namespace, for all servers and clients in it.

Documentation/networking/snmp_counter.rst explains the counters.
"""

from pathlib import Path
from typing import NamedTuple


class Counts(NamedTuple):
    """TCP counters since the namespace was made; but ``time_wait`` is how many connections are in TIME_WAIT now."""

    accepted: int
    opened: int
    segments: int
    overflowed: int  # connections dropped because the accept queue was full when their handshake ended
    dropped: int  # the overflowed connections, and SYNs that were dropped for other reasons
    time_wait: int


def counts_of(process: int) -> Counts:
    """The counters of the network namespace of a process. Raises OSError."""
    tcp, extended = _table(process, "snmp", "Tcp:"), _table(process, "netstat", "TcpExt:")
    return Counts(
        accepted=tcp["PassiveOpens"],
        opened=tcp["ActiveOpens"],
        segments=tcp["InSegs"] + tcp["OutSegs"],
        overflowed=extended["ListenOverflows"],
        dropped=extended["ListenDrops"],
        time_wait=_time_wait(process),
    )


def _table(process: int, file: str, protocol: str) -> dict[str, int]:
    """The numbers of a protocol by name. The file has the names in one line, and the numbers in the next."""
    lines = [line.split() for line in Path(f"/proc/{process}/net/{file}").read_text().splitlines()]
    names, values = (line[1:] for line in lines if line[0] == protocol)
    return dict(zip(names, map(int, values)))


def _time_wait(process: int) -> int:
    words = Path(f"/proc/{process}/net/sockstat").read_text().partition("TCP:")[2].split()
    return int(words[words.index("tw") + 1])


def devices_of(process: int) -> list[str]:
    """The network devices in the namespace of a process, without loopback.

    A device's name may have any byte but blanks, slashes and colons.
    """
    lines = Path(f"/proc/{process}/net/dev").read_text(errors="surrogateescape").split("\n")[2:]
    return [name for line in lines if (name := line.partition(":")[0].strip(" ")) not in ("lo", "")]
