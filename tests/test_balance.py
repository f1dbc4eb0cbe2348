"""The program that gives a connection to another worker where the one of its CPU is away, and what it leaves alone."""

import ctypes
import os
import re
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from tests.harness.apps import LOOPBACK, PRELOAD, Server, answer, pids
from tests.harness.commands import NOBODY, fastsocket
from tests.harness.cpus import CPUS, NEEDS_TWO_CPUS
from tests.harness.delays import assert_short, longest, stopped
from tests.harness.patience import patient
from tests.harness.waiting import wait_until
from tests.libfsocket_apps.guards import SYS_BPF, drop_by_classic_filter
from tests.libfsocket_apps.loopback import on_cpus

BALANCED = PRELOAD | {"FSOCKET_BALANCE": "on"}
LIMIT_MS = patient(10)
LATER = 5
BURST = 60
NOTICED_SECONDS = patient(1.9)  # the library asks once a second; two seconds later it stops to listen
WITHOUT_CAPABILITY = ["setpriv", "--bounding-set", "-bpf,-sys_admin"]
libbpf = ctypes.CDLL("libbpf.so.1", use_errno=True)

pytestmark = [pytest.mark.timeout(60), pytest.mark.privileged, NEEDS_TWO_CPUS]


def listening(server: Server) -> list[int]:
    """With a worker on each CPU, which has dropped its privileges; their process ids."""
    server.listen()
    workers = [server.ask("fork", str(cpu), cpu, False, NOBODY)["pid"] for cpu in CPUS]
    for cpu in CPUS:
        server.request(cpu, LATER)
    return workers


@pytest.fixture
def server():
    with Server(BALANCED) as server:
        server.workers = listening(server)
        yield server


@contextmanager
def half_open(port: int, cpu: int, number: int) -> Iterator[None]:
    """Clients that send a SYN each, and drop the answer."""
    with ExitStack() as opened, on_cpus({cpu}):
        for _ in range(number):
            client = opened.enter_context(socket.socket())
            drop_by_classic_filter(client)
            client.setblocking(False)
            client.connect_ex((LOOPBACK, port))
        yield


def programs(pid: int) -> set[int]:
    """The ids of the BPF programs that a process has open."""
    found = set()
    for entry in Path(f"/proc/{pid}/fdinfo").iterdir():
        with suppress(FileNotFoundError):  # it has been closed since
            found |= {int(number) for number in re.findall(r"^prog_id:\s+(\d+)", entry.read_text(), re.MULTILINE)}
    return found


def is_in_the_kernel(program: int) -> bool:
    descriptor = libbpf.bpf_prog_get_fd_by_id(program)
    if descriptor >= 0:
        os.close(descriptor)
    return descriptor >= 0


def answering(server: Server, number: int = LATER) -> set[int]:
    """Who answers clients of the first CPU that come one after the other."""
    return {pid for _ in range(number) for pid in pids(server.request(CPUS[0], 1))}


def test_no_client_of_a_stopped_worker_waits_long():
    def wait(preload: bool) -> float:
        with Server(BALANCED if preload else {}) as server, stopped(listening(server)[0]):
            return longest(lambda: server.request(CPUS[0], 1), LATER)

    assert_short(wait, LIMIT_MS, 5)


def assert_given_away(server: Server) -> None:
    """What clients of the first CPU ask now is answered by the second one's worker, and counted as what it is."""
    before = server.per_cpu("given_away")[0], server.per_cpu("accepted_global")[1]
    assert answering(server) == {server.workers[1]}
    wait_until(lambda: server.per_cpu("given_away")[0] > before[0], "the program gave some away")
    assert server.per_cpu("accepted_global")[1] > before[1]


def test_clients_of_a_stopped_worker_are_given_to_another_one_until_it_is_back(server):
    with stopped(server.workers[0]):
        assert_given_away(server)
    wait_until(lambda: answering(server) == {server.workers[0]}, "its clients are its own again")


def test_a_worker_for_which_many_wait_leaves_the_next_to_another_one(server):
    """It comes back to its loop all the time, so it is not away."""
    server.ask("tell", str(CPUS[0]), "neglect")
    clients = server.connect(CPUS[0], BURST)
    wait_until(lambda: server.per_cpu("given_away")[0] > BURST / 2, "the program gave most away")
    server.ask("tell", str(CPUS[0]), "rest")
    assert len([answer(client) for client in clients]) == BURST
    wait_until(lambda: answering(server) == {server.workers[0]}, "its clients are its own again")


def test_handshakes_that_never_end_wait_for_no_worker(server):
    with half_open(server.port, CPUS[0], BURST):
        wait_until(lambda: server.per_cpu("given_away")[0] > 0, "they seemed to wait")
        wait_until(lambda: answering(server) == {server.workers[0]}, "its clients are its own again")


def test_clients_of_a_worker_that_computes_are_given_to_another_one(server):
    assert server.ask("tell", str(CPUS[0]), "stay_away", "computing", patient(0.3)) == "computing"
    assert server.workers[1] in answering(server)
    wait_until(lambda: server.per_cpu("given_away")[0] > 0, "the program gave some away")
    server.read()


def test_while_all_workers_are_away_the_first_that_comes_back_answers(server):
    """The program gives clients to none of the two, but to the listener."""
    for worker, seconds in zip(CPUS, (0.6, 0.2), strict=False):
        assert server.ask("tell", str(worker), "stay_away", "computing", patient(seconds)) == "computing"
    clients = server.connect(CPUS[0], BURST)
    assert server.workers[1] in pids([answer(client) for client in clients])
    wait_until(lambda: server.per_cpu("given_away")[0] > BURST / 2, "the program gave most to the listener")
    for _ in CPUS[:2]:
        server.read()


def test_clients_of_a_killed_worker_are_given_to_another_one(server):
    os.kill(server.workers[0], signal.SIGKILL)
    server.ask("reap", str(CPUS[0]))
    assert_given_away(server)


@pytest.mark.parametrize("pattern", ["00", "01" + "00" * 7, "ff", "7f", "0123456789"])
def test_a_worker_that_writes_garbage_where_the_program_reads_misplaces_connections_and_no_more(server, pattern):
    server.ask("fork", "scribbler", CPUS[0], False, NOBODY)
    assert server.ask("tell", "scribbler", "scribble", pattern, "bpf-map") == 1
    server.ask("reap", "scribbler")
    for cpu in CPUS:
        assert pids(server.request(cpu, LATER)) <= set(server.workers)
    wait_until(lambda: answering(server) == {server.workers[0]}, "the workers have written what is so")
    with stopped(server.workers[0]):
        assert answering(server) == {server.workers[1]}


def test_threads_keep_the_connections_of_their_cpu_once_one_of_them_has_installed_a_filter():
    """After the filter the threads tell the program nothing: neither their waits nor their accepted connections."""
    with Server(BALANCED) as server:
        server.listen()
        for cpu in CPUS:
            server.ask("thread", str(cpu), cpu)
            server.request(cpu, LATER)
        server.ask("tell", str(CPUS[1]), "forbid_calls", [SYS_BPF], "prctl")
        with half_open(server.port, CPUS[0], BURST):
            assert {tuple(answer["cpus"]) for answer in server.request(CPUS[0], 2 * BURST)} == {(CPUS[0],)}


def gives_away(server: Server) -> bool:
    """Counted while the first worker is stopped, or some time later."""
    before = server.per_cpu("given_away")[0]
    with stopped(server.workers[0]):
        answering(server)
    return server.per_cpu("given_away")[0] > before


def test_the_program_goes_with_the_server():
    with Server(BALANCED) as server:
        listening(server)
        (program,) = programs(server.pid)
        assert is_in_the_kernel(program)
    wait_until(lambda: not is_in_the_kernel(program), "the program is gone")


def test_the_program_goes_with_the_last_worker_though_another_process_has_the_listener(server, tmp_path):
    """As systemd's descriptor store has it."""
    (program,) = programs(server.pid)
    with socket.socket(socket.AF_UNIX) as store:
        store.bind(str(tmp_path / "store"))
        store.listen()
        assert server.ask("send", str(tmp_path / "store")) == ""
        with store.accept()[0] as connection:
            (stored,) = socket.recv_fds(connection, 100, 1)[1]
    for cpu in CPUS:
        server.ask("tell", str(cpu), "close")
    server.ask("close")
    wait_until(lambda: not is_in_the_kernel(program), "the program is gone")
    os.close(stored)


def test_a_foreign_member_of_the_group_gets_its_part():
    """The program has chosen until then."""
    with Server(BALANCED, log=None) as server, Server({}, log=None) as other:
        server.listen("127.0.0.1", False, True, 0, "", True)
        server.workers = [server.ask("fork", str(cpu), cpu)["pid"] for cpu in CPUS]
        for cpu in CPUS:
            server.request(cpu, LATER)
        with stopped(server.workers[0]):
            assert_given_away(server)
        other.listen("127.0.0.1", False, True, server.port, "", True)
        foreigners = {other.ask("fork", str(cpu), cpu)["pid"] for cpu in CPUS}
        for cpu in CPUS:
            wait_until(lambda cpu=cpu: pids(server.request(cpu, 1)) <= foreigners, "it gets its part", NOTICED_SECONDS)


def test_without_the_capability_all_is_as_without_the_program():
    with Server(BALANCED, launcher=WITHOUT_CAPABILITY) as server:
        server.listen()
        for cpu in CPUS:
            server.ask("fork", str(cpu), cpu)
            assert len(server.request(cpu, LATER)) == LATER
        assert server.per_cpu("adopted") == [1, 1]
        assert programs(server.pid) == set()
        assert "not balanced: Operation not permitted" in fastsocket("status", server.pid).stdout


@contextmanager
def succeeded(server: Server, directory: Path, environment: dict[str, str]) -> Iterator[Server]:
    """By a server that got the listener over a Unix socket; the first server has closed it."""
    with Server(environment) as successor, socket.socket(socket.AF_UNIX) as store:
        store.bind(str(directory / "store"))
        store.listen()
        assert server.ask("send", str(directory / "store")) == ""
        with store.accept()[0] as connection:
            (descriptor,) = socket.recv_fds(connection, 100, 1)[1]
        successor.tell("receive", str(directory / "store"))
        with store.accept()[0] as connection:
            socket.send_fds(connection, [b"x"], [descriptor])
        os.close(descriptor)
        successor.know(successor.read())
        successor.workers = [successor.ask("fork", str(cpu), cpu, False, NOBODY)["pid"] for cpu in CPUS]
        for cpu in CPUS:
            server.ask("tell", str(cpu), "close")
        server.ask("close")
        wait_until(lambda: answering(successor) == {successor.workers[0]}, "the successor serves")
        yield successor


def test_a_successor_balances_once_the_server_before_has_let_go(server, tmp_path):
    (before,) = programs(server.pid)
    with succeeded(server, tmp_path, BALANCED) as successor:
        wait_until(lambda: gives_away(successor), "the new program chooses")
        assert not is_in_the_kernel(before)


def test_a_successor_that_does_not_balance_has_no_program(server, tmp_path):
    (before,) = programs(server.pid)
    with succeeded(server, tmp_path, PRELOAD) as successor:
        wait_until(lambda: not is_in_the_kernel(before), "the program is gone")
        given = successor.total("given_away")
        with stopped(successor.workers[0]):
            assert answering(successor) == {successor.workers[1]}
        assert successor.total("given_away") == given


def test_the_program_comes_back_with_the_next_workers(server):
    """While there was none, a filter was in its place."""
    for cpu in CPUS:
        server.ask("tell", str(cpu), "close")
    server.workers = [server.ask("fork", f"next {cpu}", cpu, False, NOBODY)["pid"] for cpu in CPUS]
    wait_until(lambda: answering(server) == {server.workers[0]}, "the next worker serves")
    with stopped(server.workers[0]):
        assert_given_away(server)


def test_files_that_the_server_puts_over_the_program_and_its_maps_stay(server):
    """The program goes on: workers that are there have it, and the kernel keeps it."""
    files = server.ask("put_files_over_high_descriptors")
    for cpu in CPUS:
        assert len(server.request(cpu, LATER)) == LATER
    server.ask("close")
    assert server.ask("are_open", files)
