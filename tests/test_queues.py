"""No connection waits for a worker that does not accept while another worker does, however the two wait."""

import os
import select
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from fastsocket.build import LIBRARY
from tests.harness.apps import LOOPBACK, Server, answer, pids
from tests.harness.cpus import CPUS, NEEDS_TWO_CPUS
from tests.harness.locality import adopters
from tests.harness.patience import patient
from tests.harness.waiting import wait_until

PRELOAD = {"LD_PRELOAD": str(LIBRARY)}
WAYS = [
    "epoll",
    "epoll in another thread",
    "poll",
    "select",
    "poll for its epoll",
    "select for its epoll",
    "epoll for its epoll",
]  # server.py
BY_EPOLL = ["epoll", "epoll in another thread", "poll for its epoll", "epoll for its epoll"]

pytestmark = [pytest.mark.timeout(60), NEEDS_TWO_CPUS]


@pytest.fixture
def server():
    with Server(PRELOAD) as server:
        server.listen()
        yield server


def is_stopped(pid: int) -> bool:
    """All its threads: until then one may accept a connection, which is its own from then on."""
    return all(
        stat.read_text().rpartition(")")[2].split()[0] == "T" for stat in Path(f"/proc/{pid}/task").glob("*/stat")
    )


@contextmanager
def signalled(server: Server, pid: int, number: int):
    os.kill(pid, number)
    if number == signal.SIGKILL:
        assert server.ask("reap", "a") == signal.SIGKILL
    try:
        if number != signal.SIGKILL:
            wait_until(lambda: is_stopped(pid), "the worker is stopped")
        yield
    finally:
        if number == signal.SIGSTOP:
            os.kill(pid, signal.SIGCONT)


def telling(*command) -> Callable:
    @contextmanager
    def trouble(server: Server, pid: int):
        server.ask("tell", "a", *command)
        yield

    return trouble


TROUBLES = {
    "killed": lambda server, pid: signalled(server, pid, signal.SIGKILL),
    "stopped": lambda server, pid: signalled(server, pid, signal.SIGSTOP),
    "paused": telling("mod", 0),
    "without descriptors": telling("use_up_descriptors"),
    "waits for another epoll": telling("change_epoll"),
    "watches no longer": telling("delete"),
    "held": telling("hold"),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("trouble", TROUBLES)
def test_the_other_worker_answers_clients_of_a_worker_that_does_not_accept(server, trouble, way):
    in_trouble = server.ask("fork", "a", CPUS[0])
    other = server.ask("fork", "b", CPUS[1], False, None, way)
    with ExitStack() as stack:
        stack.enter_context(TROUBLES[trouble](server, in_trouble["pid"]))
        assert pids(server.request(CPUS[0], 5)) == {other["pid"]}


@pytest.mark.parametrize("way", [way for way in BY_EPOLL if way != "epoll"])
@pytest.mark.parametrize("trouble", ["killed", "stopped"])
def test_however_the_worker_in_trouble_had_waited(server, trouble, way):
    in_trouble = server.ask("fork", "a", CPUS[0], False, None, way)
    other = server.ask("fork", "b", CPUS[1], False, None, way)
    with ExitStack() as stack:
        stack.enter_context(TROUBLES[trouble](server, in_trouble["pid"]))
        assert pids(server.request(CPUS[0], 5)) == {other["pid"]}


@pytest.mark.parametrize("way", BY_EPOLL)
def test_a_worker_has_its_clone_however_it_waits_for_its_epoll(server, way):
    workers = {cpu: server.ask("fork", str(cpu), cpu, False, None, way) for cpu in CPUS}
    wait_until(lambda: server.per_cpu("adopted") == [1, 1], "both clones are adopted")
    for cpu in CPUS:
        assert pids(server.request(cpu, 10)) == {workers[cpu]["pid"]}


@pytest.mark.parametrize("kept", ["older", "newer"])
def test_a_worker_that_watches_by_one_of_two_names_no_longer_still_answers(server, kept):
    worker = server.ask("fork", "a", CPUS[0])
    server.ask("fork", "b", CPUS[1])
    server.ask("tell", "a", "keep_one_name", kept)
    assert pids(server.request(CPUS[0], 10)) == {worker["pid"]}
    server.ask("tell", "a", "about")
    assert server.per_cpu("accepted_local") == [10, 0]


def test_a_worker_that_goes_on_after_a_pause_gets_its_connections_again(server):
    worker, other = [server.ask("fork", name, cpu) for name, cpu in zip("ab", CPUS)]
    server.ask("tell", "a", "mod", 0)
    assert pids(server.request(CPUS[0], 5)) == {other["pid"]}
    server.ask("tell", "a", "mod", select.EPOLLIN)
    wait_until(lambda: pids(server.request(CPUS[0], 1)) == {worker["pid"]}, "the worker serves again")
    assert pids(server.request(CPUS[0], 10)) == {worker["pid"]}


@pytest.mark.parametrize(
    "trouble, relief, clients", [("use_up_descriptors", "free_descriptors", 5), ("work", "rest", 1)]
)
def test_a_worker_in_trouble_is_helped_out_until_it_accepts_again(server, trouble, relief, clients):
    worker, other = [server.ask("fork", name, cpu) for name, cpu in zip("ab", CPUS)]
    server.ask("tell", "a", trouble)
    assert pids(server.request(CPUS[0], clients)) == {other["pid"]}
    server.ask("tell", "a", relief)
    wait_until(lambda: pids(server.request(CPUS[0], 1)) == {worker["pid"]}, "the worker serves again")


def test_a_worker_that_watches_by_more_epolls_than_the_library_knows_still_answers(server):
    worker = server.ask("fork", "a", CPUS[0])
    server.ask("tell", "a", "watch_by_many", 300)
    assert pids(server.request(CPUS[0], 10)) == {worker["pid"]}
    assert server.per_cpu("accepted_local") == [10, 0]


def test_a_worker_without_a_clone_that_watches_again_still_answers(server):
    worker = server.ask("fork", "a")
    server.ask("tell", "a", "watch_again", 3, select.EPOLLEXCLUSIVE)
    assert pids([*server.request(CPUS[0], 5), *server.request(CPUS[1], 5)]) == {worker["pid"]}


@pytest.mark.parametrize("kept", ["older", "newer"])
def test_a_worker_without_a_clone_that_watches_by_one_of_two_names_still_answers(server, kept):
    worker = server.ask("fork", "a")
    server.ask("tell", "a", "keep_one_name", kept)
    assert pids([*server.request(CPUS[0], 5), *server.request(CPUS[1], 5)]) == {worker["pid"]}
    assert server.total("adopted") == 0


# ---- one thread watches for another one


@pytest.fixture
def threads():
    with Server(PRELOAD) as server:
        server.listen()
        for cpu in CPUS:
            server.ask("thread", str(cpu), cpu)
        yield server


@pytest.mark.parametrize("trigger", [0, select.EPOLLEXCLUSIVE])
def test_a_worker_whose_listener_another_thread_takes_out_of_its_epoll_has_no_clone(threads, trigger):
    threads.ask("tell", str(CPUS[0]), "watch_again", 1, trigger)
    assert adopters(threads.pid) == {CPUS[0]: 1, CPUS[1]: 1}
    threads.ask("unwatch_for", str(CPUS[0]))
    assert adopters(threads.pid)[CPUS[0]] == 0
    assert {tuple(answer["cpus"]) for answer in threads.request(CPUS[0], 5)} == {(CPUS[1],)}


def test_a_worker_whose_listener_another_thread_puts_back_answers_at_once():
    """It waits all the time, and is not woken by what other threads do with its epoll."""
    with Server(PRELOAD) as server:
        server.listen()
        server.ask("thread", "a", CPUS[0])
        began = time.monotonic()
        for _ in range(10):
            server.ask("unwatch_for", "a")
            waiting = server.connect(CPUS[0], 1)
            server.ask("watch_for", "a")
            assert answer(waiting[0])["cpus"] == [CPUS[0]]
        assert time.monotonic() - began < patient(0.8)


def test_a_clone_that_stops_listening_is_in_no_epoll_of_the_process():
    """Of the application's own SO_REUSEPORT: a thread that has ended leaves its epoll, and another thread its clone."""
    with Server(PRELOAD) as server:
        server.listen(LOOPBACK, False, True, 0, "", True)
        server.ask("thread", "a", CPUS[0])
        assert server.ask("leave_epoll_behind", CPUS[0]) == []
        server.ask("tell", "a", "delete")
        assert server.ask("ready_in_epoll_behind") == []
