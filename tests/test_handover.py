"""A listener that is passed on, or whose process becomes another program: no client waits for long."""

import os
import platform
import signal
import socket
import sys
from contextlib import contextmanager

import pytest

from fastsocket.build import LIBRARY
from tests.harness.apps import APPS, Server, answer, pids
from tests.harness.cpus import CPUS, NEEDS_TWO_CPUS
from tests.harness.waiting import wait_until

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


@pytest.mark.skipif(platform.machine() != "x86_64", reason="system calls have other numbers")
def test_a_successor_whose_filter_kills_who_takes_descriptors_serves(server, tmp_path):
    """SystemCallFilter=@system-service of systemd leaves out pidfd_getfd()."""
    launcher = [sys.executable, str(APPS / "forbidding.py"), "kill", str(PIDFD_GETFD)]
    with (
        stored_listener(server, str(tmp_path / "store")) as (store, descriptor),
        Server(PRELOAD, launcher=launcher) as successor,
    ):
        successor.tell("receive", str(tmp_path / "store"))
        with store.accept()[0] as connection:
            socket.send_fds(connection, [b"x"], [descriptor])
        successor.know(successor.read())
        workers = {successor.ask("fork", str(cpu), cpu)["pid"] for cpu in CPUS}
        for cpu in CPUS:
            server.ask("tell", str(cpu), "close")
        for cpu in CPUS:
            wait_until(lambda cpu=cpu: pids(successor.request(cpu, 5)) <= workers, "the successor serves")


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
