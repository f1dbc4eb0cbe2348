"""Packets at a host's links, as its network devices count them (proc(5), /proc/PID/net/dev)."""

from pathlib import Path
from typing import NamedTuple

_RECEIVED, _SENT = 1, 9  # columns behind the device's name


class Packets(NamedTuple):
    """How many packets a host has received and sent over all its links since the links were made."""

    received: int
    sent: int

    def since(self, before: "Packets") -> "Packets":
        return Packets(self.received - before.received, self.sent - before.sent)


def packets(process: int) -> Packets:
    """The packets of the host in whose network namespace this process runs. The loopback device does not count."""
    lines = Path(f"/proc/{process}/net/dev").read_text().splitlines()[2:]
    devices = [(name.strip(), counts.split()) for name, _, counts in (line.partition(":") for line in lines)]
    links = [counts for name, counts in devices if name != "lo"]
    return Packets(*(sum(int(counts[column]) for counts in links) for column in (_RECEIVED, _SENT)))
