"""How local connections are, in percent: with a listener for each core, and without. And which workers have one."""

import pytest

from fastsocket.servers import survey
from tests.harness.cpus import ALL_CPUS
from tests.harness.patience import IS_SLOW

# Where one CPU of the machine plays all of them in turn, the one that has the packet is often the first to read it.
BY_CHANCE = pytest.approx(100 / len(ALL_CPUS), abs=50 if IS_SLOW else 10)
# Of a hundred connections that are kept open: five standard deviations of where chance puts so few.
KEPT_BY_CHANCE = pytest.approx(100 / len(ALL_CPUS), abs=50 if IS_SLOW else 25)
ALL = 90 if IS_SLOW else 99.9  # a worker that is off for long is helped out by its neighbours


def adopters(pid: int) -> dict[int, int]:
    """How many workers of the server accept from the local listener of each CPU."""
    (server,) = survey().of([pid])
    return {cpu.cpu: len(cpu.adopters) for listener in server.listeners for cpu in listener.cpus}
