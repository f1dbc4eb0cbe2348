"""What a network namespace counts of TCP, for all servers and clients in it.

Documentation/networking/snmp_counter.rst says what the numbers are.
"""

from pathlib import Path
from typing import NamedTuple


class Counts(NamedTuple):
    """Since the namespace was made. ``time_wait``: how many connections wait for stray packets now."""

    accepted: int
    opened: int
    segments: int
    overflowed: int  # connections for whose handshake's end an accept queue had no room
    dropped: int  # those, and SYNs that were dropped for other reasons
    time_wait: int


def counts_of(process: int) -> Counts:
    """Of the namespace that a process is in. Raises OSError."""
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
    """Names in one line, numbers in the next."""
    lines = [line.split() for line in Path(f"/proc/{process}/net/{file}").read_text().splitlines()]
    names, values = (line[1:] for line in lines if line[0] == protocol)
    return dict(zip(names, map(int, values)))


def _time_wait(process: int) -> int:
    words = Path(f"/proc/{process}/net/sockstat").read_text().partition("TCP:")[2].split()
    return int(words[words.index("tw") + 1])


def devices_of(process: int) -> list[str]:
    """The network devices there, without loopback. A name has no blank, slash or colon, and any other byte."""
    lines = Path(f"/proc/{process}/net/dev").read_text(errors="surrogateescape").split("\n")[2:]
    return [name for line in lines if (name := line.partition(":")[0].strip(" ")) not in ("lo", "")]
