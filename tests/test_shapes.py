"""Servers of unusual shapes answer each client, with the library as without it."""

import socket
from contextlib import ExitStack, contextmanager

import pytest

from tests.harness.apps import KINDS, LOOPBACK, PRELOAD, App
from tests.harness.cpus import ALL_CPUS, CPUS, NEEDS_TWO_CPUS
from tests.harness.locality import adopters
from tests.harness.patience import patient
from tests.harness.waiting import wait_until
from tests.libfsocket_apps.loopback import connect, on_cpus

LIBRARIES = {"without": {}} | KINDS
ANSWER_SECONDS = patient(4)

pytestmark = [pytest.mark.timeout(patient(60)), NEEDS_TWO_CPUS]


@pytest.fixture(params=LIBRARIES)
def library(request) -> dict[str, str]:
    return LIBRARIES[request.param]


class Shape(App):
    """One of libfsocket_apps/shapes.py."""

    def __init__(self, library: dict[str, str], name: str, *arguments: str):
        super().__init__("shapes.py", library)
        self._is_accelerated = bool(library)
        self.port = self.ask(name, *arguments)

    def wait_until_adopted(self, *cpus: int) -> None:
        if self._is_accelerated:
            wait_until(lambda: self._adopters() == dict.fromkeys(cpus, 1), f"a worker on each of {cpus}")

    def _adopters(self) -> dict[int, int]:
        return {cpu: number for cpu, number in adopters(self.process).items() if number}

    def client(self, cpu: int) -> socket.socket:
        with on_cpus({cpu}):
            return connect((LOOPBACK, self.port), ANSWER_SECONDS)

    def asked(self, *cpus: int) -> list[str]:
        """Who answered a client of each of these CPUs, one after the other."""
        answers = []
        for cpu in cpus:
            with self.client(cpu) as client:
                answers.append(client.recv(100).decode())
        return answers


@contextmanager
def waiting_clients(shape: Shape, *cpus: int):
    with ExitStack() as stack:
        yield [stack.enter_context(shape.client(cpu)) for cpu in cpus]


def test_threads_that_share_an_epoll_take_turns_in_it(library):
    with Shape(library, "OneEpoll") as shape:
        shape.wait_until_adopted(CPUS[0])
        assert shape.asked(*CPUS, *CPUS) == ["1"] * 4
        shape.ask("turn")
        shape.wait_until_adopted(CPUS[1])
        assert shape.asked(*CPUS, *CPUS, *reversed(CPUS)) == ["0"] * 6


@pytest.mark.parametrize("name, answer", [("BlocksLater", "late"), ("StartsItsService", "new")])
def test_the_first_client_is_left_to_a_thread_that_blocks_in_accept(library, name, answer):
    with Shape(library, name) as shape:
        shape.wait_until_adopted(CPUS[0])
        assert shape.asked(CPUS[0], CPUS[0], CPUS[1], CPUS[0]) == [answer] * 4


@pytest.mark.parametrize("successor", ["serve", "serve_blocking"])
def test_a_program_gets_the_listener_under_another_number(library, successor):
    """Clients that wait meanwhile, and those that come later."""
    with Shape(library, "BecomesAnother", successor) as shape:
        shape.wait_until_adopted(CPUS[0])
        with shape.client(CPUS[0]) as first:
            shape.ask("accept", 1)
            assert first.recv(100) == b"old"
        with waiting_clients(shape, CPUS[0], CPUS[1], CPUS[0]) as clients:
            shape.ask("become")
            assert [client.recv(100) for client in clients] == [b"new"] * 3
        assert shape.asked(*CPUS, *CPUS) == ["new"] * 4


@pytest.mark.parametrize("how", ["fork", "vfork", "spawn", "shell"])
def test_a_program_is_started_and_the_listener_closed_at_once(library, how):
    with Shape(library, "StartsAnotherAndCloses") as shape:
        shape.wait_until_adopted(CPUS[0])
        with waiting_clients(shape, CPUS[0], CPUS[1], CPUS[0]) as clients:
            shape.ask("start", how)
            assert [client.recv(100) for client in clients] == [b"new"] * 3
        assert shape.asked(*CPUS, *CPUS) == ["new"] * 4


@pytest.mark.parametrize("how", ["duplicate", "as it is"])
def test_a_program_that_gets_the_listener_has_the_library_though_its_environment_was_cleared(library, how):
    with Shape(library, "StartsWithoutEnvironment") as shape:
        assert shape.ask("start", how) == str(bool(library))


def test_no_waiting_client_is_reset_when_a_second_listener_shares_the_address(library):
    with Shape(library, "SecondShardComesLate") as shape:
        shape.wait_until_adopted(CPUS[0])
        with waiting_clients(shape, CPUS[0], CPUS[1], CPUS[0]) as clients:
            shape.ask("open")
            shape.ask("go_on")
            assert [client.recv(100) for client in clients] == [b"first"] * 3
        assert {*shape.asked(*CPUS * 20)} == {"first", "second"}


def test_a_worker_serves_while_the_other_worker_of_its_cpu_is_busy(library):
    with Shape(library, "OneIsBusy") as shape:
        assert {*shape.asked(*[CPUS[0]] * 4)} <= {"a", "b"}
        shape.ask("be_busy")
        assert {*shape.asked(CPUS[0], CPUS[1], CPUS[0])} <= {"a", "b"}


def test_threads_that_no_longer_serve_may_run_on_all_cpus(library):
    with Shape(library, "EndsServing") as shape:
        shape.wait_until_adopted(*CPUS)
        masks = shape.ask("close")
        assert masks[0] == masks[1] and {*CPUS} <= {*masks[0]}


def test_an_epoll_reports_each_of_many_listeners_once(library):
    with Shape(library, "ManyListeners") as shape, ExitStack() as clients:
        ports = shape.port
        for cpu in CPUS:
            for shape.port in ports:
                clients.enter_context(shape.client(cpu))
        assert shape.ask("reported") == [len(ports), len(ports)]


@pytest.mark.skipif(len(ALL_CPUS) < 3, reason="takes three CPUs")
def test_a_worker_stays_where_its_application_has_confined_it():
    with Shape(PRELOAD | {"FSOCKET_PIN": "always"}, "IsConfined") as shape:
        others, allowed, told = shape.ask("confine")
        assert len(others) == len(ALL_CPUS) - 1
        assert allowed == told == others
