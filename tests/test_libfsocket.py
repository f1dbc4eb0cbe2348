"""libfsocket.so under real servers: the programs in libfsocket_apps/, run with LD_PRELOAD over loopback.

Over loopback the CPU that sends a SYN handles it, so a client chooses the CPU of its connection by running there.
"""

import errno
import fcntl
import os
import select
import signal
import socket
import struct
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastsocket import shared_memory
from fastsocket.build import LIBRARY, build
from tests.harness.apps import APPS, EVERYTHING_ON, LOOPBACK, App, Server, answer, pids
from tests.harness.cpus import CPUS, NEEDS_TWO_CPUS
from tests.harness.needs import IPV6
from tests.harness.servers import free_port
from tests.harness.system_calls import sleeps_in_poll
from tests.harness.waiting import wait_until
from tests.libfsocket_apps.loopback import on_cpus

ACCEPTS_PER_GLOBAL_TURN = 32  # fsocket.h
CLOSERS = ["closerange", "one by one", "close_range", "closefrom", "by number"]  # server.py
# As the application's own code sees it: which option, and a value that is not the default.
INHERITED = {
    "SO_KEEPALIVE": (socket.SOL_SOCKET, socket.SO_KEEPALIVE, struct.pack("i", 1)),
    "SO_LINGER": (socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 7)),
    "SO_RCVBUF": (socket.SOL_SOCKET, socket.SO_RCVBUF, struct.pack("i", 20000)),
    "SO_SNDBUF": (socket.SOL_SOCKET, socket.SO_SNDBUF, struct.pack("i", 30000)),
    "SO_RCVTIMEO": (socket.SOL_SOCKET, 20, struct.pack("ll", 3, 0)),
    "SO_SNDTIMEO": (socket.SOL_SOCKET, 21, struct.pack("ll", 4, 0)),
    "IP_TOS": (socket.IPPROTO_IP, socket.IP_TOS, struct.pack("i", 0x10)),
    "IP_TTL": (socket.IPPROTO_IP, socket.IP_TTL, struct.pack("i", 33)),
    "TCP_NODELAY": (socket.IPPROTO_TCP, socket.TCP_NODELAY, struct.pack("i", 1)),
    "TCP_KEEPIDLE": (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, struct.pack("i", 99)),
    "TCP_USER_TIMEOUT": (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, struct.pack("i", 5000)),
    "TCP_MAXSEG": (socket.IPPROTO_TCP, socket.TCP_MAXSEG, struct.pack("i", 1000)),
    "TCP_CONGESTION": (socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"reno".ljust(16, b"\0")),
}

pytestmark = [pytest.mark.timeout(30), NEEDS_TWO_CPUS]


# ---- locality


def test_connections_reach_the_forked_worker_of_their_cpu(server):
    workers = [server.ask("fork", str(cpu), cpu) for cpu in CPUS]
    for cpu, worker in zip(CPUS, workers):
        assert pids(server.request(cpu, 30)) == {worker["pid"]}
    assert server.per_cpu("accepted_local") == [30, 30]
    assert server.per_cpu("adopted") == [1, 1]
    assert server.total("accepted_global") == server.total("fallen_back") == 0


def test_connections_reach_the_thread_of_their_cpu(server):
    for cpu in CPUS:
        server.ask("thread", str(cpu), cpu)
    for cpu in CPUS:
        assert {tuple(answer["cpus"]) for answer in server.request(cpu, 30)} == {(cpu,)}
    assert server.per_cpu("accepted_local") == [30, 30]
    assert server.per_cpu("adopted") == [1, 1]
    assert server.total("accepted_global") == 0


def test_unpinned_workers_are_pinned_one_per_cpu(server):
    for name in "ab":
        server.ask("fork", name)
    workers = [server.ask("tell", name, "about") for name in "ab"]
    assert sorted(worker["cpus"] for worker in workers) == [[cpu] for cpu in CPUS]
    for worker in workers:
        assert pids(server.request(worker["cpus"][0], 10)) == {worker["pid"]}


def test_a_pin_of_ours_is_told_to_nobody_and_passed_on_to_nobody(server):
    """What a worker starts may use the CPUs that the application gave it, and so says the worker itself."""
    for name in "ab":
        server.ask("fork", name)
    for name in "ab":
        assert len(server.ask("tell", name, "about")["cpus"]) == 1
        assert server.ask("tell", name, "cpus_seen") == {
            "itself": CPUS,
            "thread": CPUS,
            "fork": CPUS,
            "clone()": CPUS,
            "clone by number": CPUS,
            "_Fork()": CPUS,
            "vfork and exec": CPUS,
            "system()": CPUS,
            "posix_spawn()": CPUS,
        }
        assert len(server.ask("tell", name, "about")["cpus"]) == 1


def test_fewer_workers_than_cpus_keep_their_freedom(preload):
    with Server(preload) as server:
        server.listen()
        assert server.ask("fork", "a")["cpus"] == CPUS
        for cpu in CPUS:
            assert all(answer["cpus"] == CPUS for answer in server.request(cpu, 10))
        assert server.total("adopted") == 0


def test_fewer_workers_than_cpus_are_pinned_when_that_is_wanted(preload):
    with Server(preload | {"FSOCKET_PIN": "always"}) as server:
        server.listen()
        worker = server.ask("fork", "a")
        assert len(worker["cpus"]) == 1
        assert pids(server.request(worker["cpus"][0], 10)) == {worker["pid"]}
        assert server.total("accepted_local") == 10


def test_more_unpinned_workers_than_cpus_share_them_evenly(server):
    for name in "abcd":
        server.ask("fork", name)
    cpus = [server.ask("tell", name, "about")["cpus"] for name in "abcd"]
    assert sorted(cpus) == [[CPUS[0]]] * 2 + [[CPUS[1]]] * 2
    for cpu in CPUS:
        assert {tuple(answer["cpus"]) for answer in server.request(cpu, 20)} == {(cpu,)}


def test_workers_are_not_pinned_when_that_is_forbidden(preload):
    with Server(preload | {"FSOCKET_PIN": "never"}) as server:
        server.listen()
        workers = [server.ask("fork", name) for name in "ab"]
        assert [worker["cpus"] for worker in workers] == [CPUS, CPUS]
        for cpu in CPUS:
            assert len(server.request(cpu, 20)) == 20
        assert server.total("fallen_back") == 2
        assert server.total("accepted_global") == 40


def test_single_unpinned_process_keeps_its_freedom(server):
    assert server.ask("serve")["cpus"] == CPUS
    for cpu in CPUS:
        assert all(answer["cpus"] == CPUS for answer in server.request(cpu, 20))
    assert server.total("adopted") == 0
    assert server.total("accepted_global") == 40


def test_worker_forked_by_a_process_that_serves_adopts_its_own_cpu(server):
    master, worker = server.ask("serve", CPUS[0]), server.ask("fork", "a", CPUS[1])
    assert pids(server.request(CPUS[0], 20)) == {master["pid"]}
    assert pids(server.request(CPUS[1], 20)) == {worker["pid"]}


# ---- the global listener


def test_cpu_without_a_worker_is_served_by_the_others(server):
    server.ask("fork", "a", CPUS[0])
    assert len(server.request(CPUS[1], 40)) == 40
    assert server.per_cpu("accepted_local")[0] + server.total("accepted_global") == 40


def test_busy_local_listener_does_not_starve_the_global_one(server):
    on_global = server.connect(CPUS[0], 3)
    server.ask("fork", "a", CPUS[0], True)
    on_local = server.connect(CPUS[0], 150)
    server.ask("tell", "a", "go")
    turns = [answer(connection)["nth"] for connection in on_global]
    assert len([answer(connection) for connection in on_local]) == 150
    assert all(turn <= ACCEPTS_PER_GLOBAL_TURN * place for place, turn in enumerate(turns, start=1)), turns
    assert server.total("accepted_local") == 150


def test_listener_that_blocks_is_not_cloned_to_a_worker(preload):
    with Server(preload) as server:
        server.listen(LOOPBACK, True)
        server.ask("fork", "a", CPUS[0])
        assert (server.total("adopted"), server.total("fallen_back")) == (0, 1)


def test_the_length_of_the_accept_queue_counts_what_waits_in_clones(server):
    """Servers watch it, and so do their metrics: uWSGI, gunicorn."""
    server.ask("fork", "a", CPUS[0], True)
    waiting = server.connect(CPUS[0], 5)
    assert server.ask("accept_queue") == 5
    server.ask("tell", "a", "go")
    assert len([answer(connection) for connection in waiting]) == 5
    wait_until(lambda: server.ask("accept_queue") == 0, "nothing waits")


# ---- workers come and go


@pytest.mark.parametrize("pinned", [True, False])
def test_connections_of_a_killed_worker_wait_for_the_next_one(server, pinned):
    cpus = CPUS if pinned else [None, None]
    _, victim = [server.ask("fork", name, cpu, name == "a") for name, cpu in zip("ab", cpus)]
    cpu = victim["cpus"][0]
    os.kill(victim["pid"], signal.SIGKILL)
    assert server.ask("reap", "b") == signal.SIGKILL
    waiting = server.connect(cpu, 20)
    heir = server.ask("fork", "c", cpu if pinned else None)
    assert heir["cpus"] == [cpu]
    assert pids([answer(connection) for connection in waiting]) == {heir["pid"]}


@pytest.mark.parametrize("leaver, stayer", ["ab", "ba"], ids=["older leaves", "newer leaves"])
def test_worker_that_leaves_resets_nothing_that_another_one_can_accept(server, leaver, stayer):
    about = {name: server.ask("fork", name, CPUS[0], True) for name in "ab"}
    waiting = server.connect(CPUS[0], 40)
    server.ask("tell", leaver, "close")
    server.ask("tell", stayer, "go")
    assert pids([answer(connection) for connection in waiting]) == {about[stayer]["pid"]}
    assert pids(server.request(CPUS[0], 20)) == {about[stayer]["pid"]}
    assert server.ask("tell", stayer, "ready") == 0


def test_when_the_only_worker_of_a_cpu_leaves_the_others_serve_its_connections(server):
    workers = {cpu: server.ask("fork", str(cpu), cpu) for cpu in CPUS}
    server.ask("tell", str(CPUS[0]), "close")
    assert pids(server.request(CPUS[0], 20)) == {workers[CPUS[1]]["pid"]}
    heir = server.ask("fork", "heir", CPUS[0])
    assert pids(server.request(CPUS[0], 20)) == {heir["pid"]}
    assert server.per_cpu("adopted") == [2, 1]


def test_a_pause_by_shutdown_holds_for_the_clones_until_listen_is_called_again(preload):
    """And for the clone of a worker that comes meanwhile."""
    with Server(preload) as server:
        server.listen(LOOPBACK, False, True, free_port())
        worker = server.ask("fork", "a", CPUS[0])
        server.ask("tell", "a", "pause")
        late = server.ask("fork", "late", CPUS[1], True)
        for cpu in CPUS:
            with pytest.raises(ConnectionRefusedError):
                server.connect(cpu, 1)
        server.ask("tell", "a", "unpause")
        server.ask("tell", "late", "go")
        assert pids(server.request(CPUS[0], 20)) == {worker["pid"]}
        assert server.per_cpu("accepted_local") == [20, 0]
        wait_until(lambda: pids(server.request(CPUS[1], 1)) == {late["pid"]}, "the other worker has its clone")


def test_a_listener_that_gets_another_port_has_no_clone_at_the_one_before(server):
    """shutdown() gives a port back that the kernel has chosen."""
    server.ask("fork", "a", CPUS[0])
    server.ask("tell", "a", "pause")
    server.ask("tell", "a", "unpause")
    for cpu in CPUS:
        with pytest.raises(ConnectionRefusedError):
            server.connect(cpu, 1)


def test_watching_again_keeps_the_cpu(server):
    server.ask("fork", "a", CPUS[0])
    server.ask("fork", "b", CPUS[1], True)
    server.ask("tell", "a", "delete")
    waiting = server.connect(CPUS[0], 10)
    server.ask("tell", "a", "add")
    assert len([answer(connection) for connection in waiting]) == 10
    assert server.per_cpu("accepted_local") == [10, 0]
    assert server.per_cpu("adopted") == [1, 1]


@pytest.mark.parametrize("names", ["a", "ab"], ids=["one thread", "two threads of one CPU"])
def test_what_becomes_of_the_listener_in_an_epoll_becomes_of_the_clone(server, names):
    """Level-triggered, with a connection waiting: whoever watches is told, and nobody else."""
    for name in names:
        server.ask("thread", name, CPUS[0], True)
    waiting = server.connect(CPUS[0], 1)
    for name in names:
        assert server.ask("tell", name, "ready") == 1
        server.ask("tell", name, "mod", 0)
        assert server.ask("tell", name, "ready") == 0
        server.ask("tell", name, "mod", select.EPOLLIN)
        assert server.ask("tell", name, "ready") == 1
    for name in names:
        server.ask("tell", name, "delete")
        assert server.ask("tell", name, "ready") == 0
    server.ask("tell", "a", "add")
    server.ask("tell", "a", "go")
    answer(waiting[0])
    assert server.per_cpu("accepted_local") == [1, 0]


def test_edge_triggered_worker_gets_all_there_is(server):
    waiting = server.connect(CPUS[0], 40)
    server.ask("serve", CPUS[0], select.EPOLLET)
    assert len([answer(connection) for connection in waiting]) == 40
    assert len(server.request(CPUS[0], 40)) == 40
    assert (server.total("accepted_global"), server.total("accepted_local")) == (40, 40)
    assert server.ask("accept_all") == "EAGAIN"


def test_worker_that_runs_a_program_keeps_its_clone(server):
    """subprocess closes all descriptors between vfork() and exec(): in our memory, but not ours."""
    server.ask("fork", "a", CPUS[0])
    server.ask("fork", "b", CPUS[1])
    assert server.ask("tell", "a", "run_program") == 0
    assert len(server.request(CPUS[0], 20)) == 20
    assert server.per_cpu("accepted_local") == [20, 0]


def test_a_program_that_starts_with_the_listeners_number_takes_nothing_away(server):
    """Between vfork() and exec() its dup2() over the number happens in our memory, but not to our descriptor."""
    server.ask("move_listener", 2)
    server.ask("fork", "a", CPUS[0])
    server.ask("fork", "b", CPUS[1])
    assert server.ask("tell", "a", "run_program") == 0
    assert len(server.request(CPUS[0], 20)) == 20
    assert server.per_cpu("accepted_local") == [20, 0]


# ---- neighbours


def test_connections_of_a_stopped_worker_are_served_by_the_other_one(server):
    stopped, awake = server.ask("fork", "a", CPUS[0]), server.ask("fork", "b", CPUS[1])
    os.kill(stopped["pid"], signal.SIGSTOP)
    assert pids(server.request(CPUS[0], 20)) == {awake["pid"]}
    assert server.per_cpu("accepted_neighbour") == [0, 20]
    assert server.per_cpu("given_late") == [20, 0]
    os.kill(stopped["pid"], signal.SIGCONT)
    wait_until(lambda: pids(server.request(CPUS[0], 1)) == {stopped["pid"]}, "the worker serves again")
    assert pids(server.request(CPUS[0], 20)) == {stopped["pid"]}


def test_connections_of_a_killed_worker_are_served_by_the_other_one(server):
    victim, other = server.ask("fork", "a", CPUS[0]), server.ask("fork", "b", CPUS[1])
    os.kill(victim["pid"], signal.SIGKILL)
    assert server.ask("reap", "a") == signal.SIGKILL
    assert pids(server.request(CPUS[0], 20)) == {other["pid"]}
    assert server.per_cpu("given_left") == [20, 0]


def test_a_worker_that_stops_watching_leaves_its_connections_to_the_other_one(server):
    server.ask("fork", "a", CPUS[0])
    other = server.ask("fork", "b", CPUS[1])
    server.ask("tell", "a", "delete")
    assert pids(server.request(CPUS[0], 20)) == {other["pid"]}


# ---- workers that pin themselves late, and threads that nobody pins


def test_worker_that_pins_itself_late_adopts_then(preload):
    with Server(preload | {"FSOCKET_PIN": "never"}) as server:
        server.listen()
        worker = server.ask("fork", "a")
        assert server.total("adopted") == 0
        server.ask("tell", "a", "pin", CPUS[1])
        wait_until(lambda: server.total("adopted") == 1, "the worker adopts a clone")
        assert pids(server.request(CPUS[1], 10)) == {worker["pid"]}
        assert server.per_cpu("accepted_local") == [0, 10]


def test_worker_that_moves_takes_up_the_listener_of_its_new_cpu(server):
    server.ask("fork", "a", CPUS[0])
    server.ask("tell", "a", "pin", CPUS[1])
    wait_until(lambda: server.per_cpu("adopted") == [1, 1], "both clones are adopted")
    assert len(server.request(CPUS[1], 10)) == 10
    assert server.per_cpu("accepted_local") == [0, 10]
    assert len(server.request(CPUS[0], 10)) == 10


def test_the_first_of_two_unpinned_workers_adopts_when_it_next_waits(server):
    """As long as it was the only one it had no reason to: now it must not serve connections of other CPUs for long."""
    server.ask("thread", "a")
    assert server.total("adopted") == 0
    server.ask("thread", "b")
    server.ask("tell", "a", "ready")
    assert server.per_cpu("adopted") == [1, 1]


def test_threads_that_nobody_pinned_are_pinned_one_per_cpu(server):
    for name in "ab":
        server.ask("thread", name)
    wait_until(lambda: server.per_cpu("adopted") == [1, 1], "both clones are adopted")
    for cpu in CPUS:
        assert {tuple(answer["cpus"]) for answer in server.request(cpu, 20)} == {(cpu,)}


# ---- the application's listener, in all its forms


def test_listener_by_another_descriptor_is_the_same(server):
    server.ask("rename_listener")
    workers = {cpu: server.ask("fork", str(cpu), cpu) for cpu in CPUS}
    for cpu in CPUS:
        assert pids(server.request(cpu, 20)) == {workers[cpu]["pid"]}
    assert server.per_cpu("accepted_local") == [20, 20]


def test_inherited_listener_is_accelerated(server):
    inherited = server.ask("become", sys.executable, str(APPS / "server.py"))
    assert inherited["pid"] == server.pid
    workers = {cpu: server.ask("fork", str(cpu), cpu) for cpu in CPUS}
    for cpu in CPUS:
        assert pids(server.request(cpu, 20)) == {workers[cpu]["pid"]}
    assert server.per_cpu("accepted_local") == [20, 20]


def test_program_that_inherits_the_listener_takes_over_what_waits(server):
    """A worker of the old program still has the clones: the new one gets them, with the connections in them."""
    old = server.ask("fork", "old", CPUS[0], True)
    waiting = server.connect(CPUS[0], 20)
    server.ask("become", sys.executable, str(APPS / "server.py"))
    new = server.ask("fork", "new", CPUS[0])
    os.kill(old["pid"], signal.SIGKILL)
    assert pids([answer(connection) for connection in waiting]) == {new["pid"]}
    assert pids(server.request(CPUS[0], 20)) == {new["pid"]}


def test_listener_watched_for_one_event_at_a_time_is_left_alone(server):
    server.ask("serve", CPUS[0], select.EPOLLONESHOT)
    assert len(server.connect(CPUS[0], 1)) == 1
    assert server.total("adopted") == 0


def test_listener_made_blocking_later_still_accepts_from_all(server):
    server.ask("fork", "a", CPUS[0], True)
    server.ask("tell", "a", "block", True)
    waiting = server.connect(CPUS[0], 2)
    for connection in waiting:
        server.ask("tell", "a", "accept_one")
        answer(connection)
    assert server.per_cpu("accepted_local") == [2, 0]


def test_a_worker_that_sleeps_in_accept_wakes_for_each_of_its_queues(server):
    """From a CPU without a worker, connections come to the listener, or to the clone of the other CPU."""
    worker = server.ask("fork", "a", CPUS[0], True)
    server.ask("tell", "a", "block", True)
    for cpu in CPUS * 40:
        server.tell("tell", "a", "accept_one")
        wait_until(lambda: sleeps_in_poll(worker["pid"]), "the worker waits")
        (waiting,) = server.connect(cpu, 1)
        assert server.read() is None
        assert answer(waiting)["pid"] == worker["pid"]


@pytest.mark.parametrize("moment", ["before adoption", "after adoption"])
def test_an_application_that_sets_the_cpu_of_its_listener_reads_it_again(server, moment):
    if moment == "after adoption":
        server.ask("fork", "a", CPUS[0])
    server.ask("change_option", socket.SOL_SOCKET, socket.SO_INCOMING_CPU, struct.pack("i", CPUS[1]).hex())
    assert server.ask("get_option", socket.SOL_SOCKET, socket.SO_INCOMING_CPU) == CPUS[1]
    if moment == "before adoption":
        server.ask("fork", "a", CPUS[0])
    assert len(server.request(CPUS[0], 10)) == 10


def test_a_time_limit_of_accept_holds_for_all_of_its_queues(server):
    """SO_RCVTIMEO, of a listener that was made blocking later."""
    worker = server.ask("fork", "a", CPUS[0], True)
    server.ask("tell", "a", "block", True)
    server.ask("change_option", socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("qq", 0, 50000).hex())
    assert server.ask("tell", "a", "try_to_accept") == "EAGAIN"
    server.ask("change_option", socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("qq", 100, 0).hex())
    server.tell("tell", "a", "try_to_accept")
    (waiting,) = server.connect(CPUS[0], 1)
    assert server.read() == ""
    assert answer(waiting)["pid"] == worker["pid"]


def test_a_connection_that_is_accepted_on_another_cpu_is_not_local(server):
    server.ask("fork", "a", CPUS[0], True)
    (waiting,) = server.connect(CPUS[0], 1)
    server.ask("tell", "a", "accept_elsewhere", CPUS[1])
    answer(waiting)
    assert (server.total("accepted_local"), server.total("accepted_global")) == (0, 1)


def test_a_thread_that_the_library_has_pinned_listens_for_all_of_its_cpus(server):
    for name in "ab":
        server.ask("fork", name)
    assert server.ask("tell", "a", "listen_also") == len(CPUS)


@pytest.mark.parametrize("way", ["epoll", "poll", "select"])
def test_a_listener_that_is_left_alone_stays_so_whatever_is_done_with_it(preload, way, tmp_path):
    """The server has another one, which is accelerated."""
    with socket.socket() as probe, socket.socket(socket.AF_UNIX) as store:
        store.bind(str(tmp_path / "store"))
        store.listen()
        probe.bind((LOOPBACK, 0))
        port = probe.getsockname()[1]
        probe.close()
        with Server(preload | {"FSOCKET_ONLY": str(port)}) as server:
            server.ask("listen_also", port)
            server.listen()
            server.ask("change_option", socket.SOL_SOCKET, socket.SO_REUSEPORT, struct.pack("i", 0).hex())
            assert server.ask("get_option", socket.SOL_SOCKET, socket.SO_REUSEPORT) == 0
            server.ask("guard", "O_ASYNC")
            server.ask("change_option", socket.SOL_SOCKET, socket.SO_INCOMING_CPU, struct.pack("i", 0).hex())
            assert server.ask("get_option", socket.SOL_SOCKET, socket.SO_INCOMING_CPU) == 0
            assert server.ask("send", str(tmp_path / "store")) == ""
            waiting = server.connect(CPUS[0], 3)
            assert server.ask("accept_queue") == 3
            worker = server.ask("fork", "a", CPUS[0], False, None, way)
            assert pids([answer(connection) for connection in waiting]) == {worker["pid"]}
            assert server.total("adopted") == 0


def test_options_set_after_a_worker_adopted_reach_its_listener(preload):
    with Server(preload) as server:
        server.listen()
        level, name, value = INHERITED["TCP_KEEPIDLE"]
        server.ask("set_option", level, name, struct.pack("i", 50).hex())
        server.ask("fork", "a", CPUS[0])
        server.ask("tell", "a", "change_option", level, name, value.hex())
        assert server.request(CPUS[0], 1)[0]["options"] == [value.hex()]


def test_application_reads_what_it_set_itself(server):
    server.ask("fork", "a", CPUS[0])
    assert server.ask("get_option", socket.SOL_SOCKET, socket.SO_REUSEPORT) == 0
    assert server.ask("get_option_bytes", socket.SOL_SOCKET, socket.SO_REUSEPORT, 1) == "00"
    assert server.ask("get_option", socket.SOL_SOCKET, socket.SO_INCOMING_CPU) == -1


# ---- addresses and options


@pytest.mark.parametrize(
    "listen, v6only, clients",
    [
        pytest.param("::1", True, ["::1"], marks=pytest.mark.needs(IPV6)),
        pytest.param("::", False, ["::1", LOOPBACK], marks=pytest.mark.needs(IPV6)),
        ("0.0.0.0", True, [LOOPBACK]),
    ],
)
def test_every_kind_of_address(preload, listen, v6only, clients):
    with Server(preload) as server:
        server.listen(listen, False, v6only)
        workers = {cpu: server.ask("fork", str(cpu), cpu) for cpu in CPUS}
        for cpu in CPUS:
            for host in clients:
                assert pids(server.request(cpu, 10, host)) == {workers[cpu]["pid"]}
        assert server.per_cpu("accepted_local") == [10 * len(clients)] * 2


def test_listener_for_ipv6_only_gets_no_ipv4_clones(preload):
    with Server(preload) as server:
        server.listen("::", False, True)
        server.ask("fork", "a", CPUS[0])
        with pytest.raises(ConnectionRefusedError):
            server.connect(CPUS[0], 1)


def accepted_options(environment: dict[str, str]) -> dict[str, str]:
    with Server(environment) as server:
        server.listen()
        for level, name, value in INHERITED.values():
            server.ask("set_option", level, name, value.hex())
        server.ask("fork", "a", CPUS[0])
        return dict(zip(INHERITED, server.request(CPUS[0], 1)[0]["options"]))


def test_accepted_sockets_inherit_what_was_set_after_listen(preload):
    assert accepted_options(preload) == accepted_options({})


# ---- the application closes what it does not know


@pytest.mark.parametrize("closer", CLOSERS)
def test_application_that_closes_all_but_its_listener_is_served(preload, closer):
    with Server(preload) as server:
        listener = server.listen()["descriptor"]
        server.ask("close_all", closer, listener + 1)
        server.ask("fork", "a", CPUS[0])
        assert len(server.request(CPUS[0], 20)) == 20
        assert (server.total("accepted_global"), server.total("fallen_back")) == (0, 0)


@pytest.mark.parametrize("closer", CLOSERS)
def test_application_that_closes_its_listener_too_can_listen_again(preload, closer):
    with Server(preload) as server:
        server.ask("close_all", closer, server.listen()["descriptor"])
        with pytest.raises(ConnectionRefusedError):
            server.connect(CPUS[0], 1)
        opened = server.ask("open_many", 600)
        server.listen()
        server.ask("fork", "a", CPUS[0])
        assert len(server.request(CPUS[0], 20)) == 20
        server.ask("close")
        server.ask("close_one", opened[0])
        assert server.ask("are_open", opened[1:])


def test_close_range_that_is_refused_closes_nothing(server):
    server.ask("fork", "a", CPUS[0])
    server.ask("tell", "a", "close_all", "close_range refused", 3)
    assert len(server.request(CPUS[0], 20)) == 20
    assert server.per_cpu("accepted_local") == [20, 0]


@pytest.mark.parametrize("closer", CLOSERS)
def test_worker_that_closes_high_descriptors_accepts_what_waits(server, closer):
    server.ask("fork", "a", CPUS[0], True)
    waiting = server.connect(CPUS[0], 3)
    server.ask("tell", "a", "close_all", closer, 100)
    server.ask("tell", "a", "go")
    assert len([answer(connection) for connection in waiting]) == 3
    assert len(server.request(CPUS[0], 20)) == 20
    assert server.per_cpu("accepted_local") == [23, 0]


@pytest.mark.parametrize("how", [["close_all", "unseen", 100], ["replace_clones"]], ids=lambda how: how[0])
def test_worker_whose_clone_was_closed_unnoticed_still_serves_the_global_listener(server, how):
    on_global = server.connect(CPUS[0], 3)
    server.ask("fork", "a", CPUS[0], True)
    server.ask("tell", "a", *how)
    server.ask("tell", "a", "change_option", socket.SOL_SOCKET, socket.SO_KEEPALIVE, struct.pack("i", 1).hex())
    server.ask("tell", "a", "go")
    assert len([answer(connection) for connection in on_global]) == 3


@pytest.mark.parametrize("way", ["epoll", "poll", "select"])
def test_a_worker_that_puts_its_files_over_high_descriptors_is_served_and_keeps_them(server, way):
    """By dup2(), also over those of the library."""
    for cpu in CPUS:
        server.ask("fork", str(cpu), cpu, False, None, way)
        server.request(cpu, 5)
    files = server.ask("tell", str(CPUS[0]), "put_files_over_high_descriptors")
    assert len(files) >= len(CPUS)
    for cpu in CPUS:
        assert len(server.request(cpu, 20)) == 20
    server.ask("tell", str(CPUS[0]), "hold")
    server.ask("tell", str(CPUS[0]), "close" if way == "epoll" else "about")
    assert server.ask("tell", str(CPUS[0]), "are_open", files)


# ---- what the application's own calls answer


class Caller(App):
    """libfsocket_apps/calls.py, on one CPU: to watch a listener is to adopt a clone."""

    def __init__(self, environment: dict[str, str]):
        with on_cpus({CPUS[0]}):
            super().__init__("calls.py", environment)

    def run(self, *steps) -> list:
        return self.ask(*steps)


@pytest.fixture(scope="module")
def callers(preload):
    """With the library, and without."""
    with Caller(preload) as accelerated, Caller({}) as plain:
        yield accelerated, plain


NO_ADDRESS = struct.pack("H14x", socket.AF_UNSPEC).hex()
EVENT = struct.pack("=Iq" if os.uname().machine == "x86_64" else "@Iq", select.EPOLLIN, 3).hex()
# In each, 3 is the first descriptor.
SCENARIOS = {
    "second bind": [("listener",), ("socket", "tcp"), ("bind", 4, 3)],
    "second bind with SO_REUSEADDR": [
        ("socket", "tcp"),
        ("set_option", 3, "SO_REUSEADDR"),
        ("bind", 3),
        ("listen", 3),
        ("socket", "tcp"),
        ("set_option", 4, "SO_REUSEADDR"),
        ("bind", 4, 3),
        ("listen", 4),
    ],
    "bound twice, neither listens yet": [
        ("socket", "tcp"),
        ("set_option", 3, "SO_REUSEADDR"),
        ("bind", 3),
        ("socket", "tcp"),
        ("set_option", 4, "SO_REUSEADDR"),
        ("bind", 4, 3),
        ("listen", 3),
        ("listen", 4),
    ],
    "SO_REUSEPORT is the application's": [
        ("socket", "tcp"),
        ("set_option", 3, "SO_REUSEPORT"),
        ("bind", 3),
        ("listen", 3),
        ("socket", "tcp"),
        ("set_option", 4, "SO_REUSEPORT"),
        ("bind", 4, 3),
        ("listen", 4),
        ("get_option", 3, "SO_REUSEPORT"),
        ("same_name", 3, 4),
        ("all_descriptors",),
    ],
    "not TCP": [
        ("socket", "udp"),
        ("bind", 3),
        ("listen", 3),
        ("get_option", 3, "SO_REUSEPORT"),
        ("socket", "unix"),
        ("bind", 4),
        ("listen", 4),
        ("get_option", 4, "SO_REUSEPORT"),
        ("all_descriptors",),
    ],
    "bound again at once": [
        ("socket", "tcp"),
        ("set_option", 3, "SO_REUSEADDR"),
        ("bind", 3),
        ("listen", 3),
        ("epoll",),
        ("watch", 4, 3),
        ("connect", 3),
        ("accept", 3),
        ("socket", "tcp"),
        ("set_option", 7, "SO_REUSEADDR"),
        ("bind", 7, 3),
        ("rebind", 3),
        ("listen", 3),
        ("descriptors",),
    ],
    "bound again while a connection lives": [("listener",), ("connect", 3), ("accept", 3), ("rebind", 3)],
    "listen twice": [
        ("listener",),
        ("listen", 3),
        ("epoll",),
        ("watch", 4, 3),
        ("listen", 3),
        ("connect", 3),
        ("accept", 3),
    ],
    "closed": [("listener",), ("close", 3), ("all_descriptors",)],
    "replaced by dup2": [("listener",), ("replace", 3, True), ("all_descriptors",)],
    "replaced by dup3": [("listener",), ("replace", 3, False), ("all_descriptors",)],
    "empty accept": [("listener",), ("accept", 3), ("epoll",), ("watch", 4, 3), ("accept", 3)],
    "watched once from now on": [
        ("listener",),
        ("connect", 3),
        ("epoll",),
        ("watch", 5, 3),
        ("modify", 5, 3, select.EPOLLIN | select.EPOLLONESHOT),
        ("wait", 5),
        ("connect", 3),
        ("wait", 5),
        ("accept", 3),
        ("accept", 3),
    ],
    "watched by two epolls, one of which has another name": [
        ("listener",),
        ("epoll",),
        ("watch", 4, 3),
        ("wait", 4),
        ("epoll",),
        ("watch", 5, 3),
        ("wait", 5),
        ("duplicate", 4),
        ("close", 5),
        ("close", 6),
        ("connect", 3),
        ("wait", 4),
        ("accept", 3),
    ],
    "watched, duplicated and accepted from by number": [
        ("listener",),
        ("epoll",),
        ("by_number", "epoll_ctl", 4, 1, 3, EVENT),
        ("wait", 4),
        ("connect", 3),
        ("wait", 4),
        ("by_number", "accept", 3, 0, 0),
        ("by_number", "dup", 3),
        ("by_number", "dup2", 3, 9, 0),
        ("by_number", "fcntl", 3, fcntl.F_DUPFD, 10),
        ("by_number", "unshare", 0),
        ("close", 3),
        ("close", 7),
        ("close", 9),
        ("connect", 10),
        ("wait", 4),
        ("accept", 10),
        ("descriptors",),
    ],
    "changed by number": [
        ("listener",),
        ("epoll",),
        ("watch", 4, 3),
        ("wait", 4),
        ("by_number", "setsockopt", 3, socket.SOL_SOCKET, socket.SO_KEEPALIVE, struct.pack("i", 1).hex(), 4),
        ("by_number", "prctl", 3, 0, 0, 0, 0),
        ("connect", 3),
        ("accept", 3),
        ("get_option", 6, "SO_KEEPALIVE"),
        ("by_number", "fcntl", 3, fcntl.F_SETFL, 0),
        ("by_number", "fcntl", 3, fcntl.F_GETFL, 0),
        ("by_number", "fcntl", 3, fcntl.F_SETFL, os.O_NONBLOCK),
        ("by_number", "shutdown", 3, socket.SHUT_RD),
        ("connect", 3),
        ("listen", 3),
        ("connect", 3),
        ("accept", 3),
        ("by_number", "connect", 3, NO_ADDRESS, 16),
        ("connect", 3),
    ],
    "watched twice": [
        ("listener",),
        ("epoll",),
        ("watch", 4, 3),
        ("watch", 4, 3),
        ("unwatch", 4, 3),
        ("unwatch", 4, 3),
    ],
}


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_calls_answer_as_without_the_library(callers, scenario):
    accelerated, plain = [caller.run(*SCENARIOS[scenario]) for caller in callers]
    assert accelerated == plain


def test_second_bind_is_refused(callers):
    """Lest the comparison above compare two successes."""
    assert callers[0].run(*SCENARIOS["second bind"])[-1] == "EADDRINUSE"


LISTENER, EPOLL = 3, 4
SERVING = [("listener",), ("epoll",), ("watch", EPOLL, LISTENER)]
DESCRIPTORS = st.one_of(st.just(LISTENER), st.integers(3, 10))
EPOLLS = st.one_of(st.just(EPOLL), st.integers(3, 10))
STEPS = st.one_of(
    st.sampled_from([("connect", LISTENER), ("accept", LISTENER)]),
    st.sampled_from([("connect", LISTENER), ("accept", LISTENER), ("watch", EPOLL, LISTENER)]),
    st.tuples(st.sampled_from(["listen", "connect", "accept", "close"]), DESCRIPTORS),
    st.tuples(st.sampled_from(["watch", "unwatch"]), EPOLLS, DESCRIPTORS),
    st.tuples(st.just("modify"), EPOLLS, DESCRIPTORS, st.sampled_from([0, select.EPOLLIN])),
    st.tuples(st.sampled_from(["listener", "epoll", "open", "descriptors"])),
    st.tuples(st.just("socket"), st.sampled_from(["tcp", "tcp6", "udp", "unix"])),
    st.tuples(st.sampled_from(["bind", "same_name", "close_up"]), DESCRIPTORS, DESCRIPTORS),
    st.tuples(st.just("replace"), DESCRIPTORS, st.booleans()),
    st.tuples(st.just("set_option"), DESCRIPTORS, st.just("SO_REUSEADDR")),
)


@settings(max_examples=150, deadline=None)
@given(served_from=st.integers(0, len(SERVING)), steps=st.lists(STEPS, max_size=25))
def test_any_calls_answer_as_without_the_library(callers, served_from, steps):
    program = SERVING[:served_from] + steps + [("descriptors",), ("close_up", 3, 511), ("all_descriptors",)]
    accelerated, plain = [caller.run(*program) for caller in callers]
    assert accelerated == plain


def test_calls_that_succeed_keep_errno(preload):
    with on_cpus({CPUS[0]}), App("errno_kept.py", preload) as app:
        outcomes = app.read_all()
    assert {call for call, *_ in outcomes} == {"listen", "accept", "accept4", "epoll_ctl", "dup2", "close"}
    assert [outcome for outcome in outcomes if outcome[1:] != ["succeeded", 77]] == []


# ---- failure is harmless


@pytest.mark.parametrize("left, problem", [(1, "no memory to share"), (3, "clones for all CPUs would take more than")])
def test_too_few_descriptors_for_clones(preload, left, problem):
    """The listener takes the first; the second is enough for the page, the third for one clone of two."""
    with Server(preload, log=f"libfsocket: {problem}") as server:
        free = server.ask("open_many", 1)[0]
        server.ask("limit_descriptors", free + 1 + left)
        server.listen()
        server.ask("limit_descriptors", 1024)
        server.ask("fork", "a", CPUS[0])
        assert len(server.request(CPUS[0], 20)) == 20
        with socket.socket() as second, pytest.raises(OSError, match="Address already in use"):
            second.bind((LOOPBACK, server.port))


def test_switched_off(preload):
    with Server(preload | {"FSOCKET": "off"}) as server:
        server.listen()
        server.ask("fork", "a", CPUS[0])
        assert len(server.request(CPUS[0], 20)) == 20
        with pytest.raises(shared_memory.NotPreloaded):
            shared_memory.counters(server.pid)


def test_page_of_a_process_without_the_library():
    with pytest.raises(shared_memory.NotPreloaded):
        shared_memory.counters(os.getpid())


# ---- settings


@pytest.mark.parametrize(
    "setting", [{"FSOCKET": "off"}, {"FSOCKET_LISTEN_TABLE": "off"}, {"FSOCKET_ONLY": "1,65535"}, {"FSOCKET": "0"}]
)
def test_what_is_switched_off_makes_no_clones(preload, setting):
    with Server(preload | setting) as server:
        server.listen()
        assert server.ask("open_clones") == 0
        server.ask("fork", "a", CPUS[0])
        assert len(server.request(CPUS[0], 10)) == 10


def test_the_port_that_is_named_is_accelerated(preload):
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port = probe.getsockname()[1]
    with Server(preload | {"FSOCKET_ONLY": f"1,{port}"}) as server:
        server.listen(LOOPBACK, False, True, port)
        server.ask("fork", "a", CPUS[0])
        assert len(server.request(CPUS[0], 10)) == 10
        assert server.per_cpu("accepted_local") == [10, 0]


@pytest.mark.parametrize(
    "setting, log",
    [
        ({"FSOCKET_FAST_EPOLL": "perhaps"}, "libfsocket: FSOCKET_FAST_EPOLL=perhaps is neither on nor off"),
        ({"FSOCKET_PIN": "perhaps"}, "libfsocket: FSOCKET_PIN=perhaps is neither always nor never"),
        ({"FSOCKET": "perhaps"}, "libfsocket: FSOCKET=perhaps is neither on nor off; taken as on"),
        ({"FSOCKET_PIN": "sel\ndom\u0080"}, "libfsocket: FSOCKET_PIN=sel?dom?? is neither always nor never"),
        ({"FSOCKET_ONLY": "http"}, "libfsocket: FSOCKET_ONLY: no list of up to 16 ports from 'http' on"),
        ({"FSOCKET_ONLY": "80,0"}, "libfsocket: FSOCKET_ONLY: no list of up to 16 ports from '0' on"),
        ({"FSOCKET_ONLY": "65536"}, "libfsocket: FSOCKET_ONLY: no list of up to 16 ports from '65536' on"),
        ({"FSOCKET_ONLY": "80;81"}, "libfsocket: FSOCKET_ONLY: no list of up to 16 ports from '80;81' on"),
        (
            {"FSOCKET_ONLY": ",".join(["80"] * 18)},
            "libfsocket: FSOCKET_ONLY: no list of up to 16 ports from '80,80' on",
        ),
    ],
)
def test_a_setting_that_says_nothing_is_told_of(preload, setting, log):
    with Server(preload | setting, log) as server:
        server.listen()


@pytest.mark.parametrize("name, value", [("FSOCKET", "1"), ("FSOCKET", ""), ("FSOCKET_PIN", ""), ("FSOCKET_ONLY", "")])
def test_a_value_that_leaves_the_library_on(preload, name, value):
    with Server(preload | {name: value}) as server:
        server.listen()
        server.ask("fork", "a", CPUS[0])
        server.request(CPUS[0], 5)
        assert server.per_cpu("accepted_local") == [5, 0]


@pytest.mark.parametrize("value", ["0", "off"])
def test_a_value_that_turns_the_listeners_off(preload, value):
    """With nothing else on, and with Flow Deliver alone."""
    for flow_deliver in ("off", "on"):
        setting = {"FSOCKET_LISTEN_TABLE": value, "FSOCKET_FAST_EPOLL": "off", "FSOCKET_FLOW_DELIVER": flow_deliver}
        with Server(preload | setting) as server:
            server.listen()
            assert server.ask("open_clones") == 0
            server.ask("fork", "a", CPUS[0])
            assert len(server.request(CPUS[0], 5)) == 5


def test_strict_application_does_not_listen_unaccelerated(preload):
    """Too few descriptors for the clones: listen() fails, and the log says why."""
    with Server(preload | {"FSOCKET_STRICT": "on"}, "libfsocket: ") as server:
        server.ask("limit_descriptors", 6)
        assert server.ask("try_to_listen") == errno.errorcode[errno.EOPNOTSUPP]


# ---- the library itself


@pytest.mark.needs("gcc")
def test_exported_symbols_are_those_that_libc_exports():
    """Nothing is exported that is not interposed."""

    def exported(path: str) -> set[str]:
        listing = subprocess.run(
            ["nm", "--dynamic", "--defined-only", path], capture_output=True, text=True, check=True
        )
        return {line.split()[-1].split("@")[0] for line in listing.stdout.splitlines()}

    libc = subprocess.run(["gcc", "-print-file-name=libc.so.6"], capture_output=True, text=True, check=True).stdout
    assert exported(str(LIBRARY)) and exported(str(LIBRARY)) <= exported(libc.strip())


@pytest.mark.needs("gcc")
def test_threads_do_not_race(tmp_path):
    build("sanitized")
    program = tmp_path / "threads"
    subprocess.run(["gcc", "-O1", "-g", "-fsanitize=thread", "-o", program, APPS / "threads.c"], check=True)
    runtime = subprocess.run(["gcc", "-print-file-name=libtsan.so"], capture_output=True, text=True, check=True).stdout
    library = LIBRARY.parent / "thread" / LIBRARY.name
    done = subprocess.run(
        [program],
        capture_output=True,
        text=True,
        env={**os.environ, "LD_PRELOAD": f"{runtime.strip()} {library}"} | EVERYTHING_ON,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "800\n", "")
