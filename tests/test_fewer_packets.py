"""Fewer packets for each connection, and nothing arrives later: every packet is counted on a network of its own."""

import math
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO

import pytest

from fastsocket import shared_memory
from fastsocket.build import LIBRARY
from tests.harness import servers
from tests.harness.apps import APPS, SANITIZED, App, preloading, without_library
from tests.harness.packets import Capture, Packet
from tests.harness.patience import patient
from tests.harness.servers import Served, served
from tests.harness.waiting import wait_until
from tests.libfsocket_apps.loopback import unacknowledged

pytestmark = [pytest.mark.timeout(90), pytest.mark.privileged, pytest.mark.usefixtures("own_network")]

ANSWER = b"an answer\n"
LARGE = 1_000_000
TO_LEARN = 60  # connections after which the library knows a listener's habit, in any sample
LATE_SECONDS = patient(0.001)
PAUSE = 0.3  # of the server, answering.py
HELD_SECONDS = 0.2  # the kernel holds data no longer
HANDSHAKE = [">S", "<SA", ">A"]
PLAIN = [*HANDSHAKE, ">A6", "<A", "<A10", ">A", "<FA", ">FA", "<A"]
WITH_FIN = [*HANDSHAKE, ">A6", "<A", "<FA10", ">FA", "<A"]


class Answering:
    """libfsocket_apps/answering.py."""

    def __init__(self, environment: dict[str, str], log: IO | None = None):
        self.process = subprocess.Popen(
            [sys.executable, APPS / "answering.py"],
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        self.port = int(self.process.stdout.readline())
        self.capture = Capture(self.port)

    def end(self) -> None:
        self.capture.__exit__()
        with self.process:
            self.process.stdin.close()
        assert self.process.returncode == 0

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=patient(5))

    def ask(self, request: str) -> bytes:
        """Until the server closes. Raises ConnectionResetError."""
        with self.connect() as connection:
            connection.sendall(f"{request}\n".encode())
            return b"".join(iter(lambda: connection.recv(65536), b""))

    def seconds_to_first(self, request: str) -> float:
        """Until the first byte of the answer comes. The server has served all that came before."""
        self.ask("close")
        with self.connect() as connection:
            began = time.monotonic()
            connection.sendall(f"{request}\n".encode())
            connection.recv(1)
            seconds = time.monotonic() - began
            while request != "keep" and connection.recv(65536):
                pass
            return seconds

    def packets(self, request: str) -> list[str]:
        self.capture.seen()
        self.ask(request)
        return self.settled()

    def settled(self) -> list[str]:
        """The packets so far. The server's last one has come when it answers again."""
        before = self.capture.seen()
        self.ask("close")
        after = [packet for packet in self.capture.seen() if packet.client == before[0].client]
        return [str(packet) for packet in [*before, *after]]

    def learn(self, request: str = "close") -> None:
        for _ in range(TO_LEARN):
            self.ask(request)

    def total(self, name: str) -> int:
        return sum(getattr(cpu, name) for cpu in shared_memory.counters(self.process.pid))


@contextmanager
def answering(environment: dict[str, str], log: IO | None = None) -> Iterator[Answering]:
    server = Answering(environment, log)
    yield server
    server.end()


@pytest.fixture(params=["plain", "everything on", SANITIZED])
def kind(request) -> str:
    return request.param


@pytest.fixture
def holding(kind) -> Iterator[Answering]:
    """A server whose answers are held."""
    with answering(preloading(kind) | {"FSOCKET_ANSWER_WITH_FIN": "on"}) as server:
        server.learn()
        yield server


@pytest.fixture
def without(request) -> Iterator[Answering]:
    """A server to compare with, which differs from the other in nothing but the library."""
    kind = request.getfixturevalue("kind") if "kind" in request.fixturenames else "plain"
    with answering(without_library(kind)) as server:
        yield server


def assert_not_later(server: Answering, without: Answering, request: str) -> None:
    """By the fastest of some tries: on a busy machine any of them may be late."""
    fastest = fastest_without = math.inf
    for _ in range(8):
        server.learn()
        fastest = min(fastest, server.seconds_to_first(request))
        fastest_without = min(fastest_without, without.seconds_to_first(request))
        if fastest - fastest_without < LATE_SECONDS:
            return
    raise AssertionError(f"{request}: {(fastest - fastest_without) * 1000:.1f} ms later than without the library")


# ---- answer with FIN


def test_the_answer_leaves_with_the_fin_once_the_listener_is_known(holding):
    assert [packet for packet in holding.packets("close") if packet != "<A"] == [it for it in WITH_FIN if it != "<A"]
    assert holding.total("answers_with_fin") > 0
    assert holding.total("answers_alone") == 0


def test_without_the_switch_every_packet_is_as_without_the_library(without):
    with answering({"LD_PRELOAD": str(LIBRARY)}) as off:
        off.learn()
        assert off.packets("close") == without.packets("close") == PLAIN


@pytest.mark.parametrize("call", ["write", "writev", "sendto", "sendmsg", "twice", "shutdown", "nodelay"])
def test_every_way_to_write_is_held(holding, call):
    packets = holding.packets(call)
    assert "<FA10" in packets and "<A10" not in packets


@pytest.mark.parametrize("call", ["quiet_options", "quiet_reads", "shutdown_reading"])
def test_calls_that_do_not_wait_leave_an_answer_held(holding, call):
    packets = holding.packets(call)
    assert "<FA10" in packets and "<A10" not in packets


# Answers after which the server waits, or gives the connection to another process, thread or descriptor.
WAITS = ["keep", "sleep", "poll", "select", "read_pipe", "ask_queue", "duplicate", "fork", "spawn", "run", "pass_on"]
WAITS += ["other_thread", "again", "large", "file"]


@pytest.mark.alone
@pytest.mark.parametrize("wait", WAITS)
def test_nothing_arrives_later_where_the_thread_waits(holding, without, wait):
    assert_not_later(holding, without, wait)


def test_a_slow_reader_gets_all(holding):
    with holding.connect() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
        connection.sendall(b"large\n")
        assert sum(map(len, iter(lambda: connection.recv(1000), b""))) == LARGE


WHOLE = ["large", "file", "again", "twice", "cork", "other_thread", "closed_elsewhere", "more", "sendmmsg", "splice"]
WHOLE += ["splice_nonblocking", "sendfile", "write_nothing", "replaced_unseen"]


@pytest.mark.parametrize("request_", WHOLE)
def test_the_whole_answer_comes(holding, request_):
    expected = {"large": LARGE, "file": LARGE + len(ANSWER), "again": 2 * len(ANSWER)}
    for _ in range(5):
        assert len(holding.ask(request_)) == expected.get(request_, len(ANSWER))


def test_an_answer_of_a_connection_with_unread_data_is_not_lost(holding, without):
    """close() makes the kernel reset such a connection, and drop what it has not sent."""

    def answer(server: Answering) -> bytes:
        got = b""
        with server.connect() as connection:
            connection.sendall(b"unread\n")
            while len(got) < 2 * len(ANSWER):
                got += connection.recv(4096)
                with suppress(ConnectionResetError, BrokenPipeError):  # the server may have closed it by now
                    connection.sendall(b"more")
        return got

    assert answer(holding) == answer(without) == 2 * ANSWER


def test_a_reset_comes_after_the_answer(holding):
    with holding.connect() as connection:
        connection.sendall(b"reset\n")
        assert connection.recv(4096) == ANSWER
        with pytest.raises(ConnectionResetError):
            connection.recv(1)


def test_persistent_connections_are_found_out(holding):
    for _ in range(10):
        with holding.connect() as connection:
            for _ in range(10):
                connection.sendall(b"keep\n")
                assert connection.recv(100) == ANSWER
    held = holding.total("answers_alone")
    assert 0 < held <= 5  # of a hundred
    assert "<A10" in holding.packets("close")


def test_a_server_that_computes_after_it_wrote_is_found_out(holding):
    """One answer is as late as the kernel makes it; then the server is left alone."""
    assert holding.seconds_to_first("think") < HELD_SECONDS + patient(0.05)
    assert holding.seconds_to_first("think") < patient(0.05)


def test_a_server_that_computes_after_it_writes_is_never_held(without):
    with answering({"LD_PRELOAD": str(LIBRARY), "FSOCKET_ANSWER_WITH_FIN": "on"}) as server:
        for _ in range(3):
            assert server.ask("think") == ANSWER
        server.learn()
        server.ask("think")
        assert server.seconds_to_first("think") < HELD_SECONDS + patient(0.05)


# ---- delayed ACK


@pytest.fixture
def delaying(kind) -> Iterator[Answering]:
    """A server whose ACKs wait for its answers."""
    with answering(preloading(kind) | {"FSOCKET_DELAYED_ACK": "on"}) as server:
        server.learn()
        yield server


def test_the_ack_leaves_with_the_answer_once_the_listener_is_known(delaying):
    assert "<A" not in delaying.packets("close")[len(HANDSHAKE) : -1]  # the last one acknowledges the client's FIN
    assert delaying.total("acks_with_answer") > 0
    assert delaying.total("acks_alone") == 0


def test_with_both_parts_an_answer_is_one_segment():
    both = {"FSOCKET_ANSWER_WITH_FIN": "on", "FSOCKET_DELAYED_ACK": "on"}
    with answering({"LD_PRELOAD": str(LIBRARY)} | both) as server:
        server.learn()
        assert server.packets("close") == [*HANDSHAKE, ">A6", "<FA10", ">FA", "<A"]


def seconds_in_two_segments(server: Answering) -> float:
    """A client with Nagle's algorithm sends the second segment when the first one is acknowledged."""
    with server.connect() as connection:
        began = time.monotonic()
        connection.send(b"first ")
        connection.send(b"close\n")
        assert connection.recv(100) == ANSWER
        return time.monotonic() - began


def test_a_client_with_nagle_does_not_wait_for_the_second_segment_of_its_request(delaying, without):
    later = [seconds_in_two_segments(delaying) - seconds_in_two_segments(without) for _ in range(10)]
    assert min(later) < LATE_SECONDS
    assert sum(one > 0.04 for one in later) <= 1  # the least that the kernel delays an ACK; once, the machine may
    assert delaying.total("acks_alone") == 10


@pytest.mark.parametrize("how", ["waitall", "lowat"])
def test_the_kernel_that_waits_for_a_whole_request_does_not_wait_for_an_ack(how):
    delaying = {"LD_PRELOAD": str(LIBRARY), "FSOCKET_DELAYED_ACK": "on"}
    with answering(delaying | {"WHOLE": how}) as server, answering({"WHOLE": how}) as without:
        server.learn("first close")
        later = [seconds_in_two_segments(server) - seconds_in_two_segments(without) for _ in range(10)]
        assert min(later) < LATE_SECONDS
        assert sum(one > 0.04 for one in later) <= 1


def test_a_pool_of_threads_is_left_alone(without):
    """Its threads wait for work, and the library does not see that wait."""
    with answering({"LD_PRELOAD": str(LIBRARY), "FSOCKET_DELAYED_ACK": "on", "POOL": "yes"}) as server:
        server.learn()
        later = [seconds_in_two_segments(server) - seconds_in_two_segments(without) for _ in range(10)]
        assert sorted(later)[len(later) // 2] < patient(0.02)
        assert server.total("acks_with_answer") == 0


@pytest.mark.alone
@pytest.mark.parametrize("request_", ["sleep_first", "close", "keep", "large", "file", "fork_first"])
def test_nothing_arrives_later_with_delayed_acks(delaying, without, request_):
    assert_not_later(delaying, without, request_)


def test_a_large_request_does_not_wait_for_acks(delaying, without):
    def seconds(server: Answering) -> float:
        began = time.monotonic()
        assert server.ask("x" * LARGE + " close") == ANSWER
        return time.monotonic() - began

    assert min(seconds(delaying) - seconds(without) for _ in range(5)) < patient(0.02)


def test_what_waits_for_its_answer_is_acknowledged_when_the_thread_waits(delaying):
    delaying.capture.seen()
    with delaying.connect() as connection:
        connection.sendall(b"sleep_first\n")
        wait_until(lambda: not unacknowledged(connection), "acknowledged", patient(PAUSE / 2))
        assert connection.recv(100) == ANSWER


def test_a_server_that_waits_before_it_answers_is_left_alone():
    with answering({"LD_PRELOAD": str(LIBRARY), "FSOCKET_DELAYED_ACK": "on"}) as server:
        for _ in range(TO_LEARN):
            assert server.ask("wait_first") == ANSWER
        assert "<A" in server.packets("close")[len(HANDSHAKE) : -1]
        assert server.total("acks_with_answer") == server.total("acks_alone") == 0


def test_the_application_does_not_see_the_option_on_its_listener(delaying, without):
    assert delaying.ask("quickack") == without.ask("quickack") == b"1"


# ---- delayed ACK of what the application opens


class Speaking:
    """A server that speaks first and also answers; in this process, without the library."""

    def __init__(self):
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]

    def serve(self) -> None:
        with suppress(OSError):  # the end
            while True:
                connection, _ = self._listener.accept()
                connection.sendall(ANSWER)
                connection.shutdown(socket.SHUT_WR)
                connection.settimeout(patient(5))
                with connection:
                    connection.recv(100)

    def __enter__(self):
        self._thread = threading.Thread(target=self.serve)
        self._thread.start()
        return self

    def __exit__(self, *exception):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()


@pytest.fixture
def opening(kind) -> Iterator[App]:
    with App("opening.py", preloading(kind) | {"FSOCKET_DELAYED_ACK": "on"}) as client:
        yield client


@pytest.mark.parametrize("how", ["write_first", "write_first_when_told", "write_first_blocking"])
def test_the_handshake_is_acknowledged_by_the_request(opening, without, how):
    opening.ask(how, without.port, TO_LEARN)
    without.capture.seen()
    opening.ask(how, without.port, 1)
    assert [str(packet) for packet in without.capture.seen()][:4] == [">S", "<SA", ">A6", "<A"]


@pytest.mark.parametrize("how", ["read_first", "read_first_blocking"])
def test_a_server_that_speaks_first_is_heard_at_once(opening, how):
    with Speaking() as server:
        assert min(opening.ask(how, server.port, 5)) < LATE_SECONDS * 10
        assert sorted(opening.ask(how, server.port, TO_LEARN))[TO_LEARN // 2] < LATE_SECONDS * 10


def test_an_application_that_no_longer_writes_first_waits_once(opening):
    with Speaking() as server:
        opening.ask("write_first", server.port, TO_LEARN)
        seconds = opening.ask("read_first", server.port, 10)
    assert max(seconds) < HELD_SECONDS + patient(0.05)
    assert sum(one > HELD_SECONDS / 2 for one in seconds) <= 1


# ---- deferred accept


@pytest.fixture
def deferring(kind) -> Iterator[Answering]:
    with answering(preloading(kind) | {"FSOCKET_DEFER_ACCEPT": "on"}) as server:
        yield server


def test_a_connection_is_accepted_when_its_request_is_there(deferring):
    with deferring.connect() as silent:
        assert deferring.ask("count_open") == b"1"
        silent.sendall(b"close\n")
        assert silent.recv(100) == ANSWER
    assert deferring.total("spoken_first") == 0


def test_without_the_switch_a_silent_connection_is_accepted(without):
    with without.connect():
        assert without.ask("count_open") == b"2"


def test_a_silent_connection_is_accepted_after_the_syn_ack_was_sent_again(deferring):
    with deferring.connect():
        wait_until(lambda: deferring.ask("count_open") == b"2", "accepted", patient(4))


def test_the_application_does_not_see_that_its_listener_defers(deferring, without):
    assert deferring.ask("defer_accept") == without.ask("defer_accept") == b"0"


def test_the_application_reads_what_it_sets_on_a_listener_that_defers(deferring, without):
    for request in ("listener_keepalive", "listener_nodelay", "listener_defers"):
        assert deferring.ask(request) == without.ask(request) == ANSWER
        assert deferring.ask("defer_accept") == without.ask("defer_accept")


def test_a_server_that_speaks_first_is_found_out(tmp_path):
    environment = {"LD_PRELOAD": str(LIBRARY), "FSOCKET_DEFER_ACCEPT": "on", "GREETS": "yes"}
    with open(tmp_path / "log", "w") as log, answering(environment, log) as server:
        for _ in range(3):
            with server.connect() as connection:
                began = time.monotonic()
                assert connection.recv(100) == ANSWER
                seconds = time.monotonic() - began
        assert seconds < 1  # the kernel waits for so long
        assert server.total("spoken_first") == 1
    assert (tmp_path / "log").read_text() == (
        "libfsocket: FSOCKET_DEFER_ACCEPT: this server writes before it reads; its connections are accepted at once\n"
    )


# ---- real servers


def packets_of_a_request(one: Served) -> list[list[Packet]]:
    """Of each of some connections, after the server has had many."""
    with Capture(one.port) as capture:
        for _ in range(200):
            assert one.answers()
        capture.seen()
        for _ in range(10):
            assert one.answers()
        seen = capture.seen()
    clients = dict.fromkeys(packet.client for packet in seen)
    return [[packet for packet in seen if packet.client == client] for client in clients]


# How many packets a short connection has at most: with neither part, with Answer with FIN, with Delayed ACK, and with
# both. HAProxy looks after the ACKs of its HTTP frontends itself, and saves one if the request is there at accept().
PACKETS = [
    (servers.NGINX_ONE_WORKER, (10, 8, 9, 7)),
    (servers.HAPROXY_THREADS, (10, 8, 10, 8)),
    (servers.LIGHTTPD, (10, 8, 9, 7)),
]
SWITCHES = ("FSOCKET_ANSWER_WITH_FIN", "FSOCKET_DELAYED_ACK")


@pytest.mark.slow
@pytest.mark.parametrize("server, packets", [pytest.param(*row, id=row[0].name) for row in PACKETS])
@pytest.mark.parametrize("answer_with_fin, delayed_ack", [(0, 0), (1, 0), (0, 1), (1, 1)])
def test_packets_of_a_short_connection(server, packets, answer_with_fin, delayed_ack, tmp_path, monkeypatch):
    for name, switch in zip(SWITCHES, (answer_with_fin, delayed_ack)):
        monkeypatch.setenv(name, str(switch))
    with served(server, tmp_path, preload=True) as one:
        numbers = [len(connection) for connection in packets_of_a_request(one)]
    assert sorted(numbers)[len(numbers) // 2] <= packets[answer_with_fin + 2 * delayed_ack], numbers
