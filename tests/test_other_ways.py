"""An application deals with its listener in less common ways: by number, by signals, by other programs."""

import select
import sys

import pytest

from fastsocket.measure.listeners import Listeners
from tests.harness.apps import APPS, App, Server, answer, compiled
from tests.harness.cpus import CPUS, NEEDS_TWO_CPUS
from tests.harness.system_calls import sleeps_in_epoll_wait
from tests.harness.waiting import wait_until
from tests.libfsocket_apps.loopback import connect, on_cpus

ENDS = ["connect to no address", "close by number", "a file in its place by number"]  # server.py

pytestmark = [pytest.mark.timeout(30), NEEDS_TWO_CPUS]


@pytest.mark.parametrize("how", ENDS)
def test_when_the_application_ends_its_listener_nothing_listens(server, how):
    server.ask("serve", CPUS[0])
    server.request(CPUS[0], 1)
    server.ask("hold")
    server.ask("end_listener", how)
    for cpu in CPUS:
        with pytest.raises(ConnectionRefusedError):
            server.connect(cpu, 1)


def test_accept_by_number_is_accept(server):
    server.ask("fork", "a", CPUS[0], True)
    waiting = server.connect(CPUS[0], 1)
    server.ask("tell", "a", "accept_one_by_number")
    answer(waiting[0])
    assert server.per_cpu("accepted_local") == [1, 0]


def test_a_process_that_was_told_to_accept_gets_what_waits_in_a_clone(server):
    server.ask("fork", "a", CPUS[0], True)
    waiting = server.connect(CPUS[0], 1)
    server.ask("accept_for_another")
    assert answer(waiting[0])["pid"] == server.pid


@pytest.mark.parametrize("trigger", [0, select.EPOLLET], ids=["level", "edge"])
def test_an_epoll_reports_a_listener_once(server, trigger):
    """Though its clone has connections, too."""
    server.ask("serve", CPUS[0], trigger)
    server.request(CPUS[0], 1)
    server.ask("hold")
    waiting = [connection for cpu in CPUS for connection in server.connect(cpu, 12)]
    assert server.ask("ready") == 1
    assert server.ask("accept_all") == "EAGAIN"
    assert len([answer(connection) for connection in waiting]) == 24


def test_connections_go_to_another_program_when_the_last_worker_looks_away(server):
    """It is not under the library, so it sees the listener alone."""
    server.ask("serve", CPUS[0])
    server.request(CPUS[0], 1)
    server.ask("leave_to_another_program")
    waiting = [connection for cpu in CPUS for connection in server.connect(cpu, 5)]
    assert {answer(connection) for connection in waiting} == {"another program"}
    server.ask("end_other_program")


def test_a_thread_with_descriptors_of_its_own_is_served(server):
    server.ask("fork", "a", CPUS[0])
    server.request(CPUS[0], 1)
    assert server.ask("tell", "a", "take_own_descriptors") == 0
    for cpu in CPUS:
        server.request(cpu, 8)


def test_a_wait_sees_nothing_of_the_epoll_that_takes_the_place_of_its_own(preload):
    """Another thread closes the epoll meanwhile. The kernel goes on to wait for what the closed one held."""
    with Server(preload) as server:
        server.listen()
        thread = server.ask("wait_in_thread", 1000)
        wait_until(lambda: sleeps_in_epoll_wait(thread), "it waits")
        server.ask("put_another_in_place_of_waited_epoll")
        assert server.ask("seen_in_thread") == 0


def test_workers_that_listen_themselves_have_the_same_clones(preload):
    """Also one that comes after the last one has died, before or after the living one knows: otherwise a worker that
    dies later takes connections along."""
    with App("listening_workers.py", preload) as master:
        port = master.read()
        first, second = [master.ask("fork", cpu) for cpu in CPUS]

        def request(cpu: int) -> int:
            with on_cpus({cpu}):
                return answer(connect(("127.0.0.1", port)))

        assert {request(cpu) for cpu in CPUS} <= set(CPUS)
        for death_is_noticed in (True, False) * 2:
            master.ask("kill", second)
            if death_is_noticed:
                assert [request(cpu) for cpu in CPUS] == [CPUS[0], CPUS[0]]
            second = master.ask("fork", CPUS[1])
            ours, others = master.ask("sockets", first, second)
            assert ours == others and len(ours) == len(CPUS)


def test_descriptors_duplicated_before_the_socket_listened_are_one_listener(preload):
    """Otherwise one worker gets the connections of all CPUs."""
    program = [sys.executable, APPS / "duplicating_workers.py", *map(str, CPUS)]
    with App(program, preload) as server:
        port = server.read()
        for cpu in [*CPUS] * 4:
            with on_cpus({cpu}):
                assert answer(connect(("127.0.0.1", port))) == cpu


def test_handlers_of_fork_that_were_there_before_the_library_may_listen_and_close(tmp_path, preload):
    """Before the fork, after it, and in the child: handlers that another library's constructor registered."""
    other = compiled("fork_handlers.c", tmp_path, "-shared", "-fPIC")
    with Server(preload | {"LD_PRELOAD": f"{preload['LD_PRELOAD']} {other}"}) as server:
        server.listen()
        server.ask("fork", "a", CPUS[0])
        assert server.request(CPUS[0], 1)[0]["cpus"] == [CPUS[0]]


def test_an_application_that_asks_for_signals_and_does_not_wait_has_them(server):
    server.ask("serve", CPUS[0])
    server.ask("hold")
    server.ask("guard", "O_ASYNC")
    waiting = server.connect(CPUS[0], 1)
    wait_until(lambda: server.ask("signals_had") > 0, "the signal is there")
    server.ask("go")
    answer(waiting[0])


def test_a_clone_has_the_backlog_that_its_listener_has_at_that_time(server):
    server.ask("fork", "a", CPUS[0])
    server.ask("listen_again", 7)
    server.ask("tell", "a", "pin", CPUS[1])

    def backlogs() -> list[int]:
        with Listeners(server.pid) as known:
            return [listener.limit for listener in known.read().values() if listener.port == server.port]

    wait_until(lambda: len(backlogs()) == 3, "the worker has the clone of its new CPU")
    assert backlogs() == [7, 7, 7]


@pytest.mark.parametrize(
    "until, library, answer",
    [("a signal comes", "interrupting.c", "interrupted"), ("its time is over", "still_clock.c", 0)],
    ids=["a signal during a look", "a clock that stands still"],
)
def test_a_wait_ends_when_it_should(tmp_path, preload, until, library, answer):
    other = compiled(library, tmp_path, "-shared", "-fPIC")
    environment = preload | {"LD_PRELOAD": f"{preload['LD_PRELOAD']} {other}"}
    with App([sys.executable, str(APPS / "waits.py"), f"until {until}", str(CPUS[0])], environment) as waits:
        ended = dict(waits.read_all())
    assert ended and set(ended.values()) == {answer}
