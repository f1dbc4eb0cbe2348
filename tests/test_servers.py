"""Real servers under libfsocket.so: each answers as it does without it, and is accelerated where it should be."""

from dataclasses import dataclass

import pytest

from fastsocket import shared_memory
from fastsocket.processes import family
from tests.harness import servers
from tests.harness.cpus import CPUS, NEEDS_TWO_CPUS
from tests.harness.locality import MOSTLY
from tests.harness.patience import patient
from tests.harness.servers import Served, Server, served
from tests.harness.waiting import wait_until

CONNECTIONS = 200  # from each CPU

pytestmark = [pytest.mark.timeout(60), NEEDS_TWO_CPUS]

LOCAL = "every connection is accepted from the clone of the CPU that handled its SYN"
GLOBAL = "every connection is accepted from the server's own listener"
BEHIND = "every connection is accepted from a clone; by a neighbour, where the CPU's own worker was behind"


@dataclass(frozen=True)
class Acceleration:
    """What the library makes of a server: how its connections are accepted, and which threads took up a clone."""

    accepted: str
    adopted: frozenset[int] = frozenset({0})  # or one of these
    fallen_back: frozenset[int] = frozenset({0})  # or one of these


BOTH, ONE, SOME = frozenset({2}), frozenset({1}), frozenset({1, 2})

EXPECTED: list[tuple[Server, Acceleration]] = [
    (servers.NGINX_WORKERS, Acceleration(LOCAL, adopted=BOTH)),
    # Who has the mutex watches, so there is one worker at a time; whether the other one ever gets it is chance.
    (servers.NGINX_ACCEPT_MUTEX, Acceleration(GLOBAL, fallen_back=SOME)),
    (servers.NGINX_REUSEPORT, Acceleration(LOCAL, adopted=BOTH)),
    (servers.HAPROXY_THREADS, Acceleration(LOCAL, adopted=BOTH)),
    (servers.HAPROXY_PINNED, Acceleration(LOCAL, adopted=BOTH)),
    (servers.HAPROXY_MASTER_WORKER, Acceleration(LOCAL, adopted=BOTH)),
    (servers.REDIS, Acceleration(GLOBAL, fallen_back=ONE)),  # a single process, not pinned
    (servers.MEMCACHED, Acceleration(GLOBAL, fallen_back=ONE)),  # only its main thread accepts
    (servers.LIGHTTPD, Acceleration(GLOBAL, fallen_back=ONE)),
    (servers.LIGHTTPD_WORKERS, Acceleration(LOCAL, adopted=BOTH)),
    (servers.APACHE_EVENT, Acceleration(LOCAL, adopted=BOTH)),  # a thread of each child accepts
    (servers.APACHE_WORKER, Acceleration(GLOBAL)),  # one child at a time waits, by poll()
    (servers.APACHE_PREFORK, Acceleration(GLOBAL)),
    (servers.H2O, Acceleration(LOCAL, adopted=BOTH)),
    (servers.ASYNCIO, Acceleration(GLOBAL, fallen_back=ONE)),
    (servers.THREADING, Acceleration(GLOBAL)),  # blocks, and uses poll()
    (servers.FORKING, Acceleration(GLOBAL)),
    (servers.GUNICORN, Acceleration(GLOBAL)),  # select()
    (servers.UVICORN, Acceleration(BEHIND, adopted=BOTH)),
    (servers.NODE_ROUND_ROBIN, Acceleration(GLOBAL, fallen_back=ONE)),  # only the primary accepts
    (servers.NODE_SHARED, Acceleration(BEHIND, adopted=BOTH)),
]


def per_cpu(one: Served, name: str) -> list[int] | None:
    """A counter on our CPUs. None where nothing is counted.

    The first process that listened shares its counters with its descendants.
    """
    for pid in family(one.pid):
        try:
            totals = shared_memory.counters(pid)
        except shared_memory.NotPreloaded:
            continue
        return [getattr(totals[cpu], name) for cpu in CPUS]
    return None


def total(one: Served, name: str) -> int:
    return sum(per_cpu(one, name) or [0])


def accepted(one: Served) -> dict[str, list[int] | None]:
    return {name: per_cpu(one, name) for name in ("accepted_local", "accepted_global", "accepted_neighbour")}


def assert_accepted(how: str, before: dict, after: dict) -> None:
    local, general, neighbour = ([now - was for now, was in zip(after[name], before[name])] for name in after)
    if how == LOCAL:
        helped = neighbour[::-1]  # a neighbour accepts for a worker that is off for milliseconds
        assert ([own + by for own, by in zip(local, helped)], general) == ([CONNECTIONS] * 2, [0, 0])
        assert min(local) >= CONNECTIONS * MOSTLY / 100
    elif how == GLOBAL:
        assert (local, sum(general)) == ([0, 0], 2 * CONNECTIONS)
    else:
        assert (sum(local) + sum(neighbour), sum(general)) == (2 * CONNECTIONS, 0)
        assert sum(local) > CONNECTIONS


# Of servers that not every machine has, by the first word of their names.
NEEDED = {
    "node": pytest.mark.needs("node"),
    "apache": pytest.mark.needs("apache2"),
    "h2o": pytest.mark.needs("h2o"),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "server, expected",
    [pytest.param(*row, id=row[0].name, marks=NEEDED.get(row[0].name.split()[0], ())) for row in EXPECTED],
)
def test_serves_and_is_accelerated_as_expected(server, expected, tmp_path):
    with served(server, tmp_path, preload=True) as one:
        wait_until(lambda: total(one, "adopted") in expected.adopted, f"{expected.adopted} adopted", patient(5))
        before = accepted(one)
        with one.load(CPUS, CONNECTIONS) as load:
            load.wait()
        assert [load.counts[cpu]["ok"] for cpu in CPUS] == [CONNECTIONS] * 2, load.counts
        assert_accepted(expected.accepted, before, accepted(one))
        assert total(one, "adopted") in expected.adopted
        assert total(one, "fallen_back") in expected.fallen_back
    assert "libfsocket" not in one.log()
