"""A server that may use only the machine's last CPU: the library's tables have nothing for the CPUs before it."""

import os
import signal
import socket
import struct

import pytest

from fastsocket.build import LIBRARY
from tests.harness.apps import Server, answer, pids
from tests.harness.cpus import CPUS, NEEDS_TWO_CPUS

pytestmark = [pytest.mark.timeout(60), NEEDS_TWO_CPUS]

LAST = CPUS[-1]


@pytest.fixture
def server():
    with Server({"LD_PRELOAD": str(LIBRARY)}, launcher=["taskset", "--cpu-list", str(LAST)]) as server:
        server.listen()
        yield server


def test_its_worker_has_a_clone(server):
    worker = server.ask("fork", "a", LAST)
    assert pids(server.request(LAST, 10)) == {worker["pid"]}
    assert server.per_cpu("accepted_local") == [0, 10]


def test_its_clone_follows_the_listener(server):
    option = (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE)
    server.ask("set_option", *option, struct.pack("i", 50).hex())
    server.ask("fork", "a", LAST)
    server.ask("tell", "a", "change_option", *option, struct.pack("i", 60).hex())
    assert server.request(LAST, 1)[0]["options"] == [struct.pack("i", 60).hex()]


def test_its_next_worker_gets_what_a_killed_one_has_left(server):
    victim = server.ask("fork", "a", LAST, True)
    waiting = server.connect(LAST, 3)
    os.kill(victim["pid"], signal.SIGKILL)
    server.ask("reap", "a")
    worker = server.ask("fork", "b", LAST)
    assert pids([answer(connection) for connection in waiting]) == {worker["pid"]}


def test_its_clone_pauses_with_the_listener(server):
    server.ask("fork", "a", LAST)
    server.ask("tell", "a", "pause")
    with pytest.raises(ConnectionRefusedError):
        server.connect(LAST, 1)
    server.ask("tell", "a", "unpause")
    assert len(server.request(LAST, 5)) == 5
