"""The clients of a worker that is stopped, or away from its loop, are answered by another one within milliseconds.

While no worker is in such trouble, none wakes for another one.
"""

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path

import pytest

from tests.harness.apps import PRELOAD, Server
from tests.harness.cpus import CPUS, NEEDS_TWO_CPUS
from tests.harness.delays import assert_short, longest, stopped
from tests.harness.patience import patient
from tests.harness.servers import NGINX_WORKERS, Served, served
from tests.libfsocket_apps.loopback import on_cpus

LIMIT_MS = patient(25)
LATER = 5
REQUESTS = 64
PAUSE_SECONDS = 0.02  # after it, a bell that has rung can ring again
SECONDS_AWAY = 0.3

pytestmark = [pytest.mark.timeout(60), NEEDS_TWO_CPUS]


@contextmanager
def away(server: Server, how: str) -> Iterator[None]:
    assert server.ask("tell", "a", "stay_away", how, SECONDS_AWAY) == how
    yield
    server.read()


TROUBLES = {
    "stopped": lambda server, pid: stopped(pid),
    "computing": lambda server, pid: away(server, "computing"),
    "polling": lambda server, pid: away(server, "polling"),
}


def wait_beside(trouble: str, way: str, preload: bool) -> float:
    """The longest, from the first client of a worker in trouble to the last one of some more."""
    with Server(PRELOAD if preload else {}) as server:
        server.listen()
        in_trouble = server.ask("fork", "a", CPUS[0])
        server.ask("fork", "b", CPUS[1], False, None, way)
        server.request(CPUS[0], LATER)
        with TROUBLES[trouble](server, in_trouble["pid"]):
            return longest(lambda: server.request(CPUS[0], 1), LATER)


@pytest.mark.parametrize(
    "way", ["epoll", "poll", "select", "poll for its epoll", "select for its epoll", "epoll for its epoll"]
)
@pytest.mark.parametrize("trouble", TROUBLES)
def test_no_client_of_a_worker_in_trouble_waits_long(trouble, way):
    assert_short(lambda preload: wait_beside(trouble, way, preload), LIMIT_MS)


def times_slept(pid: int) -> int:
    return int(
        re.search(r"^voluntary_ctxt_switches:\s+(\d+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)[1]
    )


def in_turn(ask: Callable[[], object]) -> None:
    for _ in range(REQUESTS):
        ask()
        time.sleep(PAUSE_SECONDS)


def test_connections_of_one_worker_do_not_wake_the_other():
    """Whose epoll watches without EPOLLEXCLUSIVE."""
    with Server(PRELOAD) as server:
        server.listen()
        worker, other = [server.ask("fork", name, cpu)["pid"] for name, cpu in zip("ab", CPUS)]
        server.request(CPUS[0], 1)
        before = times_slept(worker), times_slept(other)
        in_turn(lambda: server.request(CPUS[0], 1))
        slept = times_slept(worker) - before[0], times_slept(other) - before[1]
    assert slept[0] >= REQUESTS
    assert slept[1] <= REQUESTS / 2


# ---- nginx


def request(one: Served, cpu: int) -> None:
    with on_cpus({cpu}):
        assert one.answers()


@contextmanager
def nginx(directory: Path, preload: bool = True) -> Iterator[Served]:
    """Each worker has waited since the other one came."""
    directory.mkdir()
    with on_cpus(CPUS), served(NGINX_WORKERS, directory, preload) as one:
        for cpu in CPUS * LATER:
            request(one, cpu)
        yield one


@pytest.mark.needs("nginx")
def test_no_client_of_a_stopped_nginx_worker_waits_long(tmp_path):
    names = map(str, count())

    def wait(preload: bool) -> float:
        with nginx(tmp_path / next(names), preload) as one, stopped(one.workers()[0]):
            return max(longest(partial(request, one, cpu), LATER) for cpu in CPUS)

    assert_short(wait, LIMIT_MS)


def worker_of(one: Served, cpu: int) -> int:
    """The library pins nginx's workers."""
    (pid,) = [pid for pid in one.workers() if os.sched_getaffinity(pid) == {cpu}]
    return pid


@pytest.mark.needs("nginx")
def test_connections_of_one_nginx_worker_do_not_wake_the_other(tmp_path):
    """Through many times in which nginx takes its listener out of its epoll and puts it back."""
    with nginx(tmp_path / "nginx") as one:
        before = {cpu: times_slept(worker_of(one, cpu)) for cpu in CPUS}
        in_turn(lambda: request(one, CPUS[0]))
        slept = [times_slept(worker_of(one, cpu)) - before[cpu] for cpu in CPUS]
    assert slept[0] >= REQUESTS
    assert slept[1] <= REQUESTS / 2
