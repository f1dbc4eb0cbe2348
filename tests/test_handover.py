"""A listener that is passed on, or whose process becomes another program: no client waits for long."""

import os
import signal
import socket
import sys

import pytest

from fastsocket.build import LIBRARY
from tests.harness.apps import APPS, Server, answer, pids
from tests.harness.cpus import CPUS, NEEDS_TWO_CPUS
from tests.harness.waiting import wait_until

PRELOAD = {"LD_PRELOAD": str(LIBRARY)}

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
