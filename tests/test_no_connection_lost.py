"""What servers do to their listeners while connections arrive without a pause: none may be lost that is not lost
without libfsocket.so, either.

Each scenario runs first without the library, then with it; the summary at the end of the run has the counts of both.
"""

import os
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from fastsocket.processes import children
from fastsocket.shared_memory import SharedMemory
from tests.harness import servers
from tests.harness.apps import LOOPBACK
from tests.harness.cpus import CPUS, NEEDS_TWO_CPUS
from tests.harness.load import CONCURRENCY, OUTCOMES, Load
from tests.harness.servers import Served, Server, is_running, served
from tests.harness.successors import finish_old_binary, reload_nginx, replace_workers, start_new_binary, upgrade_nginx
from tests.harness.waiting import wait_until
from tests.libfsocket_apps.loopback import connect, on_cpus
from workloads.readiness import watchers

TIMES, TIMES_LONG = 5, 20
BETWEEN = 100  # connections from each CPU that end well before it happens again
STOPPED_SECONDS = 1  # long enough for the others to take what waits for the stopped worker
WAITING = 10

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), NEEDS_TWO_CPUS]


@dataclass(frozen=True)
class Scenario:
    """What happens to a server; it is over when ``happen`` returns. ``may_lose`` connections each time, at most."""

    server: Server
    happen: Callable[[Served, Load], None]
    may_lose: int = 0


def nginx_reload(one: Served, load: Load) -> None:
    reload_nginx(one)


def haproxy_reload(one: Served, load: Load) -> None:
    """The master passes the listeners on from the old worker to the new one."""
    replace_workers(one, lambda: os.kill(one.pid, signal.SIGUSR2))


def haproxy_takeover(one: Served, load: Load) -> None:
    """A second process gets the listeners over the first one's socket, and asks it to finish."""
    old = one.process
    one.start("-x", str(one.directory / "haproxy.sock"), "-sf", str(old.pid))
    assert old.wait(servers.WAIT_SECONDS) == 0
    wait_until(one.is_ready, "the new process serves")


def nginx_upgrade(one: Served, load: Load) -> None:
    upgrade_nginx(one)


def worker_killed(one: Served, load: Load) -> None:
    victim = children(one.pid)[0]
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: victim not in children(one.pid) and one.is_ready(), "the killed worker is replaced")


def worker_stopped(one: Served, load: Load) -> None:
    """For a while that others can be served in: what it holds waits."""
    victim = children(one.pid)[0]
    before = load.ask()
    os.kill(victim, signal.SIGSTOP)
    time.sleep(STOPPED_SECONDS)
    meanwhile = load.ask()
    os.kill(victim, signal.SIGCONT)
    assert any(meanwhile[cpu]["ok"] > before[cpu]["ok"] + BETWEEN for cpu in CPUS), (before, meanwhile)


SCENARIOS = [
    pytest.param(Scenario(servers.NGINX_WORKERS, nginx_reload), id="nginx reload"),
    pytest.param(Scenario(servers.NGINX_DAEMON_KEEPING_PRELOAD, nginx_upgrade), id="nginx upgrade, env LD_PRELOAD"),
    pytest.param(Scenario(servers.NGINX_DAEMON, nginx_upgrade), id="nginx upgrade"),
    pytest.param(Scenario(servers.HAPROXY_MASTER_WORKER, haproxy_reload), id="haproxy reload"),
    pytest.param(Scenario(servers.HAPROXY_THREADS, haproxy_takeover), id="haproxy takeover"),
    # What the killed worker had accepted is lost: no more than was under way.
    pytest.param(Scenario(servers.NGINX_WORKERS, worker_killed, may_lose=2 * CONCURRENCY), id="nginx worker killed"),
    pytest.param(Scenario(servers.NGINX_WORKERS, worker_stopped), id="nginx worker stopped"),
]


def more_connections(load: Load) -> None:
    """Wait for so many more, answered well, from each CPU."""
    before = load.ask()
    wait_until(
        lambda: all(now["ok"] >= before[cpu]["ok"] + BETWEEN for cpu, now in load.ask().items()),
        f"{BETWEEN} more connections from each CPU",
    )


def outcomes(scenario: Scenario, directory: Path, preload: bool, times: int) -> Counter:
    """Of all connections while it happens again and again."""
    directory.mkdir()
    with served(scenario.server, directory, preload) as one:
        with one.load(CPUS) as load:
            for _ in range(times):
                more_connections(load)
                scenario.happen(one, load)
            more_connections(load)
        assert "libfsocket" not in one.log()
    return load.total()


def lost(counts: Counter) -> int:
    return sum(counts[outcome] for outcome in OUTCOMES if outcome != "ok")


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_no_connection_is_lost_that_is_not_lost_without(scenario, tmp_path, is_long, record_property, request):
    times = TIMES_LONG if is_long else TIMES
    without = outcomes(scenario, tmp_path / "without", False, times)
    under = outcomes(scenario, tmp_path / "with", True, times)
    record_property(
        "summary", f"{request.node.callspec.id}, {times} times: without {dict(without)}, with {dict(under)}"
    )
    assert under["refused"] == under["hung"] == under["wrong"] == 0, (without, under)
    assert lost(under) <= max(lost(without), scenario.may_lose * times), (without, under)


BALANCED = {"FSOCKET_BALANCE": "on"}
WITH_THE_PROGRAM = [
    pytest.param(servers.NGINX_DAEMON, [nginx_reload, nginx_upgrade], 0, id="nginx reload, upgrade"),
    pytest.param(servers.NGINX_WORKERS, [worker_killed], 2 * CONCURRENCY, id="nginx worker killed"),
    pytest.param(servers.HAPROXY_THREADS, [haproxy_takeover], 0, id="haproxy takeover"),
]


@pytest.mark.privileged
@pytest.mark.parametrize("server, happenings, may_lose", WITH_THE_PROGRAM)
def test_no_connection_is_lost_with_the_program_that_balances(server, happenings, may_lose, tmp_path):
    with served(replace(server, environment=BALANCED), tmp_path, True) as one:
        with one.load(CPUS) as load:
            for happen in happenings:
                more_connections(load)
                happen(one, load)
            more_connections(load)
        assert lost(load.total()) <= may_lose
        with SharedMemory(one.pid) as memory:
            assert {listener.balance for listener in memory.listeners()} == {"on"}


def waiting_connections(one: Served) -> list[socket.socket]:
    """In accept queues that nobody looks at, from each CPU."""
    connections = []
    for cpu in CPUS:
        with on_cpus({cpu}):
            connections += [connect((LOOPBACK, one.port)) for _ in range(WAITING)]
    for connection in connections:
        connection.sendall(one.server.request)
    return connections


def answer(connection: socket.socket) -> str:
    try:
        with connection, connection.makefile("rb") as reader:
            return "ok" if servers.HTTP_ANSWER.fullmatch(reader.read()) else "wrong"
    except ConnectionResetError:
        return "reset"


@contextmanager
def stopped(workers: list[int]):
    """They go on when the context ends, and then find what was sent to them meanwhile."""
    send(workers, signal.SIGSTOP)
    yield
    send(workers, signal.SIGCONT)


def send(workers: list[int], number: signal.Signals) -> None:
    for worker in workers:
        os.kill(worker, number)


def one_worker_leaves(one: Served) -> list[socket.socket]:
    workers = children(one.pid)
    with stopped(workers):
        connections = waiting_connections(one)
        send(workers[:1], signal.SIGQUIT)
    return connections


def one_worker_is_killed(one: Served) -> list[socket.socket]:
    """It has accepted none of them, so none is lost with it."""
    killed, *others = children(one.pid)
    with stopped(others):
        send([killed], signal.SIGSTOP)
        connections = waiting_connections(one)
        send([killed], signal.SIGKILL)  # it goes although it is stopped, so nobody is left to be sent SIGCONT
    return connections


def all_workers_are_replaced(one: Served) -> list[socket.socket]:
    old = children(one.pid)
    with stopped(old):
        connections = waiting_connections(one)
        os.kill(one.pid, signal.SIGHUP)
        wait_until(lambda: watchers(one.pid, one.port) == 2 * len(old), "the new workers watch, too")
        send(old, signal.SIGQUIT)
    return connections


def the_binary_is_replaced(one: Served) -> list[socket.socket]:
    master, old = one.pid, children(one.pid)
    start_new_binary(one)
    with stopped(old):
        connections = waiting_connections(one)
        os.kill(master, signal.SIGWINCH)
        send(old, signal.SIGQUIT)
    finish_old_binary(one, master)
    return connections


# Stopped workers accept nothing, and a signal that waits comes before anything else when they go on.
HANDOVERS = [
    pytest.param(servers.NGINX_WORKERS, one_worker_leaves, id="one worker leaves"),
    pytest.param(servers.NGINX_WORKERS, one_worker_is_killed, id="one worker is killed"),
    pytest.param(servers.NGINX_WORKERS, all_workers_are_replaced, id="reload"),
    pytest.param(servers.NGINX_ONE_WORKER, all_workers_are_replaced, id="reload, one worker"),
    pytest.param(servers.NGINX_DAEMON_KEEPING_PRELOAD, the_binary_is_replaced, id="upgrade, env LD_PRELOAD"),
    pytest.param(servers.NGINX_DAEMON, the_binary_is_replaced, id="upgrade"),
]


@pytest.mark.parametrize("preload", [False, True], ids=["without", "with"])
@pytest.mark.parametrize("server, hand_over", HANDOVERS)
def test_what_waits_while_workers_leave_is_served_by_others(server, hand_over, preload, tmp_path):
    with served(server, tmp_path, preload) as one:
        connections = hand_over(one)
        assert Counter(map(answer, connections)) == Counter(ok=len(connections))
        wait_until(one.is_ready, "the workers that stay serve")


def neighbour_takes_over(one: Served, killed: int) -> None:
    with stopped([one.pid]):
        send([killed], signal.SIGKILL)
        wait_until(lambda: not is_running(killed), "the killed worker is woken for no connection any more")
        wait_until(one.answers, "the neighbour serves what was the killed one's")


@pytest.mark.parametrize("preload", [False, True], ids=["without", "with"])
def test_a_new_worker_gets_the_first_connection_that_its_neighbour_could_have_taken(preload, tmp_path):
    with served(servers.NGINX_WORKERS, tmp_path, preload) as one:
        for killed in children(one.pid):
            with on_cpus(os.sched_getaffinity(killed)):
                neighbour_takes_over(one, killed)
                wait_until(one.is_ready, "the new worker serves")
