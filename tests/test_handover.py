"""A listener that is passed on, or whose process becomes another program: no client waits for long."""

import os
import platform
import signal
import socket
import sys
from contextlib import contextmanager

import pytest

from fastsocket.build import LIBRARY
from tests.harness.apps import APPS, LOOPBACK, Server, answer, pids
from tests.harness.cpus import CPUS, NEEDS_TWO_CPUS
from tests.harness.waiting import wait_until
from workloads.readiness import listening_inodes

PRELOAD = {"LD_PRELOAD": str(LIBRARY)}
PIDFD_GETFD = 438

pytestmark = [pytest.mark.timeout(60), NEEDS_TWO_CPUS]


@pytest.fixture
def server():
    with Server(PRELOAD) as server:
        server.listen()
        server.workers = {cpu: server.ask("fork", str(cpu), cpu)["pid"] for cpu in CPUS}
        yield server


def is_accelerated(server: Server) -> bool:
    before = server.per_cpu("accepted_local")
    for cpu in CPUS:
        server.request(cpu, 5)
    return server.per_cpu("accepted_local") == [count + 5 for count in before]


def test_a_listener_that_did_not_reach_anybody_stays_accelerated(server):
    assert server.ask("send_to_nobody") == "EPIPE"
    for cpu in CPUS:
        assert pids(server.request(cpu, 10)) == {server.workers[cpu]}
    assert is_accelerated(server)


def test_a_listener_that_is_only_stored_is_accelerated_again(server, tmp_path):
    """As systemd's descriptor store does, which never accepts (sd_notify(3), FDSTORE=1)."""
    with socket.socket(socket.AF_UNIX) as store:
        store.bind(str(tmp_path / "store"))
        store.listen()
        assert server.ask("send", str(tmp_path / "store")) == ""
        with store.accept()[0] as connection:
            stored = socket.recv_fds(connection, 100, 1)[1]
        try:
            for cpu in CPUS:
                assert len(server.request(cpu, 10)) == 10
            wait_until(lambda: is_accelerated(server), "the server is accelerated", 20)
        finally:
            os.close(stored[0])


@contextmanager
def stored_listener(server: Server, path: str):
    """The server sends its listener to us, and we on to the program that asks for it at this path."""
    with socket.socket(socket.AF_UNIX) as store:
        store.bind(path)
        store.listen()
        assert server.ask("send", path) == ""
        with store.accept()[0] as connection:
            (descriptor,) = socket.recv_fds(connection, 100, 1)[1]
        try:
            yield store, descriptor
        finally:
            os.close(descriptor)


def give(successor: Server, store: socket.socket, descriptor: int) -> None:
    """The successor waits for the stored listener, and gets it."""
    with store.accept()[0] as connection:
        socket.send_fds(connection, [b"x"], [descriptor])
    successor.know(successor.read())


def assert_succeeds(successor: Server, server: Server, store: socket.socket, descriptor: int) -> None:
    """The successor waits for the stored listener. It serves once the server's workers are gone."""
    give(successor, store, descriptor)
    workers = {successor.ask("fork", str(cpu), cpu)["pid"] for cpu in CPUS}
    for cpu in CPUS:
        server.ask("tell", str(cpu), "close")
    for cpu in CPUS:
        wait_until(lambda cpu=cpu: pids(successor.request(cpu, 5)) <= workers, "the successor serves")


@pytest.mark.skipif(platform.machine() != "x86_64", reason="system calls have other numbers")
def test_a_successor_whose_filter_kills_who_takes_descriptors_serves(server, tmp_path):
    """SystemCallFilter=@system-service of systemd leaves out pidfd_getfd()."""
    launcher = [sys.executable, str(APPS / "forbidding.py"), "kill", str(PIDFD_GETFD)]
    with (
        stored_listener(server, str(tmp_path / "store")) as (store, descriptor),
        Server(PRELOAD, launcher=launcher) as successor,
    ):
        successor.tell("receive", str(tmp_path / "store"))
        assert_succeeds(successor, server, store, descriptor)


@pytest.mark.privileged
def test_a_successor_that_sees_no_other_process_serves(server, tmp_path):
    """In a root without /proc."""
    with stored_listener(server, str(tmp_path / "store")) as (store, descriptor), Server(PRELOAD) as successor:
        successor.ask("change_root", str(tmp_path))
        successor.tell("receive", "/store")
        assert_succeeds(successor, server, store, descriptor)


def test_a_worker_that_watches_again_while_its_listener_is_passed_on_has_no_clone(server, tmp_path):
    with stored_listener(server, str(tmp_path / "store")):
        before = server.total("adopted")
        server.ask("tell", str(CPUS[0]), "watch_again", 3, 0)
        assert server.total("adopted") == before
        assert len(server.request(CPUS[0], 10)) == 10
    wait_until(lambda: is_accelerated(server), "the server is accelerated", 20)


def test_a_program_that_cannot_be_run_changes_nothing(server):
    """Other processes have its clones."""
    assert server.ask("fail_to_become", "/nonexistent") == "ENOENT"
    for cpu in CPUS:
        assert pids(server.request(cpu, 10)) == {server.workers[cpu]}
    assert is_accelerated(server)


def test_listeners_for_each_worker_are_passed_on_to_the_next_program():
    with Server(PRELOAD) as server:
        server.know(server.ask("listen_as_shards", CPUS, "not"))
        for index, cpu in enumerate(CPUS):
            server.ask("choose_shard", index)
            os.kill(server.ask("fork", str(index), cpu)["pid"], signal.SIGKILL)
            server.ask("reap", str(index))
        server.know(server.ask("become", sys.executable, str(APPS / "server.py")))
        heir = server.ask("fork", "heir", CPUS[0])
        assert pids(server.request(CPUS[0], 10)) == {heir["pid"]}


def test_a_listener_that_goes_by_sendmmsg_and_comes_by_recvmmsg_is_taken_over(server, tmp_path):
    """Its clones, too: while the old workers still live, and when they are gone."""
    path = str(tmp_path / "unix")
    with socket.socket(socket.AF_UNIX) as unix, Server(PRELOAD) as successor:
        unix.bind(path)
        unix.listen()
        server.tell("send_by_sendmmsg", path)
        with unix.accept()[0] as connection:
            assert server.read() == 2
            _, descriptors, _, _ = socket.recv_fds(connection, 1, 1)
            if not descriptors:
                _, descriptors, _, _ = socket.recv_fds(connection, 1, 1)
        successor.tell("receive_by_recvmmsg", path)
        with unix.accept()[0] as connection:
            connection.sendall(b"x")
            socket.send_fds(connection, [b"x"], descriptors)
            successor.know(successor.read())
        os.close(descriptors[0])
        assert successor.ask("open_clones") == len(CPUS) + 1  # and the shared memory


def test_a_listener_that_was_taken_over_is_the_successors_even_if_it_is_sent_again(server, tmp_path):
    with Server(PRELOAD) as successor:
        with stored_listener(server, str(tmp_path / "store")) as (store, descriptor):
            successor.tell("receive", str(tmp_path / "store"))
            give(successor, store, descriptor)
        for cpu in CPUS:
            server.ask("tell", str(cpu), "close")
        assert server.ask("send_to_nobody") == "EPIPE"
        with stored_listener(server, str(tmp_path / "again")):
            workers = {cpu: successor.ask("fork", str(cpu), cpu)["pid"] for cpu in CPUS}
            for cpu in CPUS:
                wait_until(lambda cpu=cpu: pids(successor.request(cpu, 5)) == {workers[cpu]}, "the successor serves")
            assert is_accelerated(successor)


@pytest.mark.parametrize("how", ["killed", "closed"])
def test_a_client_that_came_while_no_worker_was_there_is_answered_by_the_next_program(server, how):
    for cpu in CPUS:
        if how == "killed":
            os.kill(server.workers[cpu], signal.SIGKILL)
            server.ask("reap", str(cpu))
        else:
            server.ask("tell", str(cpu), "close")
    waiting = [connection for cpu in CPUS for connection in server.connect(cpu, 10)]
    server.know(server.ask("become", sys.executable, str(APPS / "server.py")))
    heir = server.ask("fork", "heir", CPUS[0])
    assert pids([answer(connection) for connection in waiting]) == {heir["pid"]}


def test_clones_go_on_listening_while_a_successor_has_them_and_no_worker_yet(tmp_path):
    """A clone that stops would reset handshakes that are under way. With SO_REUSEPORT no filter keeps them away."""
    with Server(PRELOAD) as server, Server(PRELOAD) as successor:
        server.listen(LOOPBACK, False, True, 0, "", True)
        for cpu in CPUS:
            server.ask("fork", str(cpu), cpu)
        assert len(listening_inodes(server.port)) == 1 + len(CPUS)
        with stored_listener(server, str(tmp_path / "store")) as (store, descriptor):
            successor.tell("receive", str(tmp_path / "store"))
            give(successor, store, descriptor)
        for cpu in CPUS:
            server.ask("tell", str(cpu), "close")
        assert len(listening_inodes(server.port)) == 1 + len(CPUS)
        workers = {successor.ask("fork", str(cpu), cpu)["pid"] for cpu in CPUS}
        for cpu in CPUS:
            assert pids(successor.request(cpu, 5)) <= workers
