"""How local connections are, in percent: with a listener for each core, and without. And which workers have one."""

import pytest

from fastsocket.servers import survey
from records.trials import Trial
from tests.harness.cpus import ALL_CPUS
from tests.harness.patience import IS_SLOW

# Where one CPU of the machine plays all of them in turn, the one that has the packet is often the first to read it.
BY_CHANCE = pytest.approx(100 / len(ALL_CPUS), abs=50 if IS_SLOW else 10)
# Of a hundred connections that are kept open: five standard deviations of where chance puts so few.
KEPT_BY_CHANCE = pytest.approx(100 / len(ALL_CPUS), abs=50 if IS_SLOW else 25)
ALL = 90 if IS_SLOW else 99.9  # a worker that is off for long is helped out by its neighbours
MOSTLY = 75  # local by itself, without what neighbours took over
ACCEPTED = ("local", "global", "neighbour")  # how the library counts what it accepted


def assert_all_local(trial: Trial) -> None:
    """But for those passive connections that a neighbour took because their own worker was off for milliseconds."""
    local, helped = trial.metrics["passive_local_percent"], helped_percent([trial])
    assert local >= MOSTLY and local + helped >= ALL, (local, helped)


def helped_percent(trials: list[Trial]) -> float:
    """The share of accepted connections that the library counts as taken by a neighbour; 0 without the library."""
    counted = accepted(trials)
    return 100 * counted["neighbour"] / max(1, sum(counted.values()))


def accepted(trials: list[Trial]) -> dict[str, int]:
    """Connections by how the library accepted them."""
    counters = [cpu.counts for trial in trials for cpu in trial.library or []]
    return {how: sum(counts[f"accepted_{how}"] for counts in counters) for how in ACCEPTED}


def adopters(pid: int) -> dict[int, int]:
    """How many workers of the server accept from the local listener of each CPU."""
    (server,) = survey().of([pid])
    return {cpu.cpu: len(cpu.adopters) for listener in server.listeners for cpu in listener.cpus}
