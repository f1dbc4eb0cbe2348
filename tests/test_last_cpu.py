"""A server that may use only the machine's last CPU: the library's tables have nothing for the CPUs before it."""

import os
import signal
import socket
import struct
import sys

import pytest

from fastsocket import shared_memory
from fastsocket.build import LIBRARY
from tests.harness.apps import APPS, LOOPBACK, Server, answer, pids
from tests.harness.commands import NOBODY
from tests.harness.cpus import CPUS, NEEDS_TWO_CPUS
from tests.harness.servers import free_port
from tests.harness.system_calls import sleeps_in_poll
from tests.harness.waiting import wait_until

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


def test_its_worker_sleeps_in_accept_until_a_connection_comes(server):
    worker = server.ask("fork", "a", LAST, True)
    server.ask("tell", "a", "block", True)
    server.tell("tell", "a", "accept_one")
    wait_until(lambda: sleeps_in_poll(worker["pid"]), "the worker waits")
    (waiting,) = server.connect(LAST, 1)
    assert server.read() is None
    assert answer(waiting)["pid"] == worker["pid"]


def test_its_listener_is_passed_on_and_comes_back(server):
    worker = server.ask("fork", "a", LAST)
    assert server.ask("send_to_nobody") == "EPIPE"
    assert pids(server.request(LAST, 10)) == {worker["pid"]}


def test_its_next_program_answers_who_waits(server):
    server.ask("fork", "a", LAST)
    server.ask("tell", "a", "close")
    waiting = server.connect(LAST, 5)
    server.know(server.ask("become", sys.executable, str(APPS / "server.py")))
    heir = server.ask("fork", "heir", LAST)
    assert pids([answer(connection) for connection in waiting]) == {heir["pid"]}


def test_a_worker_on_another_cpu_gets_a_clone_of_its_own(server):
    worker = server.ask("fork", "a", CPUS[0])
    assert pids(server.request(CPUS[0], 10)) == {worker["pid"]}
    assert server.per_cpu("accepted_local") == [10, 0]


@pytest.mark.privileged
def test_a_worker_on_another_cpu_and_of_another_user_serves_without_one(server):
    """It may not bind to the address of its master."""
    worker = server.ask("fork", "a", CPUS[0], False, NOBODY)
    assert pids(server.request(CPUS[0], 10)) == {worker["pid"]}
    assert server.total("adopted") == 0
    with shared_memory.SharedMemory(server.pid) as memory:
        (listener,) = memory.listeners()
    assert listener.why_not == "its worker runs on a CPU that was not the server's when it listened"


# ---- in a group of the application


@pytest.fixture
def grouped():
    with Server({"LD_PRELOAD": str(LIBRARY)}, launcher=["taskset", "--cpu-list", str(LAST)]) as server:
        server.listen(LOOPBACK, False, True, 0, "", True)
        yield server


def listens(server: Server) -> bool:
    with shared_memory.SharedMemory(server.pid) as memory:
        return any(cpu.listening for listener in memory.listeners() for cpu in listener.cpus)


@pytest.mark.parametrize("waiting", [0, 3])
def test_what_waits_in_a_group_when_its_worker_leaves_is_for_the_next_one(grouped, waiting):
    """The clone leaves the group, unless connections wait in it."""
    grouped.ask("fork", "a", LAST, True)
    connections = grouped.connect(LAST, waiting)
    grouped.ask("tell", "a", "close")
    assert listens(grouped) == (len(connections) > 0)
    heir = grouped.ask("fork", "b", LAST)
    assert {answer(connection)["pid"] for connection in connections} <= {heir["pid"]}
    assert pids(grouped.request(LAST, 10)) == {heir["pid"]}


def test_its_clone_leaves_a_group_once_no_clone_can_do_what_the_listener_does(grouped):
    worker = grouped.ask("fork", "a", LAST)
    assert listens(grouped)
    grouped.ask("tell", "a", "guard", "O_ASYNC")
    wait_until(lambda: not listens(grouped), "the clone listens no longer", 20)
    assert pids(grouped.request(LAST, 10)) == {worker["pid"]}


def test_its_clone_pauses_with_the_listener():
    """On a port that it names: one that the kernel chose would be given back."""
    with Server({"LD_PRELOAD": str(LIBRARY)}, launcher=["taskset", "--cpu-list", str(LAST)]) as server:
        server.listen(LOOPBACK, False, True, free_port())
        server.ask("fork", "a", LAST)
        server.ask("tell", "a", "pause")
        with pytest.raises(ConnectionRefusedError):
            server.connect(LAST, 1)
        server.ask("tell", "a", "unpause")
        assert len(server.request(LAST, 5)) == 5
