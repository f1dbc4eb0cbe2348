"""fastsocket attach: a running server's listeners go to the CPUs of its workers, and are put back however it ends."""

import json
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastsocket.attach import guard as guarding
from fastsocket.attach.changes import NO_CPU, ListenerGiven, borrowed, written
from fastsocket.attach.guard import STATE, guarded
from fastsocket.attach.plan import CannotAttach, spread
from fastsocket.attach.session import _Attachment
from fastsocket.attach.workers import Watched
from fastsocket.processes import Process, children, family, numbers
from tests.harness.apps import LOOPBACK
from tests.harness.commands import FASTSOCKET, assert_one_line, fastsocket
from tests.harness.cpus import CPUS
from tests.harness.servers import (
    APPS,
    HAPROXY_THREADS,
    NGINX_REUSEPORT,
    NGINX_WORKERS,
    Served,
    Server,
    free_port,
    served,
)
from tests.harness.servers import nginx as server_of_nginx
from tests.harness.waiting import wait_until
from tests.libfsocket_apps.loopback import on_cpus
from workloads.peers.envoy import _address, _connections, _extension
from workloads.process import running
from workloads.readiness import watchers

pytestmark = [pytest.mark.privileged, pytest.mark.skipif(len(CPUS) < 2, reason="takes two CPUs")]

REQUESTS = 20
WORKER = re.compile(rb"HTTP/1\.[01] 200 OK\r\n(?:.*\r\n)+\r\nworker (\d+)\n")


def telling(server: Server, file: str, *changes: tuple[str, str]) -> Server:
    """A server whose answer names its worker, by changes to its configuration."""

    def prepare(directory: Path, port: int) -> list[str]:
        command, configuration = server.prepare(directory, port), directory / file
        text = configuration.read_text()
        for old, new in changes:
            text, count = re.subn(old, new, text)
            assert count == 1
        configuration.write_text(text)
        return command

    return replace(server, prepare=prepare, answer=WORKER)


def _envoy(directory: Path, port: int) -> list[str]:
    page = {"status": 200, "body": {"inline_string": "hello\n"}}
    connections = _connections()
    connections["route_config"]["virtual_hosts"][0]["routes"] = [{"match": {"prefix": "/"}, "direct_response": page}]
    listener = {
        "address": _address(LOOPBACK, port),
        "filter_chains": [{"filters": [_extension("filters.network.http_connection_manager", connections)]}],
    }
    configuration = directory / "envoy.json"
    configuration.write_text(json.dumps({"static_resources": {"listeners": [listener]}}))
    return [
        "envoy",
        "--concurrency",
        str(len(CPUS)),
        "--disable-hot-restart",
        "-l",
        "warning",
        "-c",
        str(configuration),
    ]


ENVOY = Server("envoy", _envoy, watchers=len(CPUS), request=b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
UPGRADABLE = server_of_nginx("nginx daemon reuseport", main="", listen=" reuseport", pid_file="nginx.pid")
SHARED = telling(NGINX_WORKERS, "nginx.conf", ("hello", "worker $pid"))
NGINX = telling(NGINX_REUSEPORT, "nginx.conf", ("hello", "worker $pid"))
TWO_ADDRESSES = telling(
    NGINX_REUSEPORT, "nginx.conf", ("hello", "worker $pid"), (r"(listen 127.0.0).1(.*)", r"\1.1\2 \1.2\2")
)
HAPROXY = telling(
    HAPROXY_THREADS,
    "haproxy.cfg",
    ('string "hello', 'lf-string "worker %[thread]'),
    (r"(bind \S+)", r"\1 shards by-thread"),
)


@pytest.fixture(params=[NGINX, HAPROXY, ENVOY], ids=["nginx", "haproxy", "envoy"])
def server(request, tmp_path) -> Iterator[Served]:
    if request.param is ENVOY and not shutil.which("envoy"):
        pytest.skip("python3 lab.py sweep --workload envoy asks for it")
    with served(request.param, tmp_path, preload=False) as one:
        yield one


@pytest.fixture
def nginx(tmp_path) -> Iterator[Served]:
    with served(NGINX, tmp_path, preload=False) as one:
        yield one


@contextmanager
def by_turns(python: str) -> Iterator[int]:
    """A server of two processes in which two threads share an epoll; its first process."""
    port = free_port()
    with running([python, str(APPS / "by_turns.py"), str(port)]) as first:
        try:
            wait_until(lambda: watchers(first.pid, port) == 2, "both processes wait for connections")
            yield first.pid
        finally:
            os.killpg(first.pid, signal.SIGKILL)


class Attached:
    """fastsocket attach, which has said what it gave."""

    def __init__(self, pid: int, *options: str):
        self.process = subprocess.Popen(
            [*FASTSOCKET, "attach", "--pin", "--json", *options, str(pid)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.told = self.read()

    def read(self) -> dict:
        line = self.process.stdout.readline()
        assert line, self.process.stderr.read()
        return json.loads(line)

    @property
    def guard(self) -> int:
        (guard,) = children(self.process.pid)
        return guard

    def wait(self) -> int:
        """Its exit status, when its guard has ended, too: that holds the other end of stderr."""
        self.process.stderr.read()
        self.process.stdout.close()
        return self.process.wait()


@contextmanager
def attached(pid: int, *options: str) -> Iterator[Attached]:
    one = Attached(pid, *options)
    try:
        yield one
    finally:
        one.process.kill()
        one.wait()


def state(pid: int) -> tuple[dict[int, int], dict[int, set[int]]]:
    """What attach changes: the CPU of each listener, and where each thread may run."""
    cpus = {}
    for listener in Watched(pid).look():
        with borrowed(family(pid), listener.inode) as copy:
            cpus[listener.inode] = copy.getsockopt(socket.SOL_SOCKET, socket.SO_INCOMING_CPU)
    members = [thread for process in family(pid) for thread in numbers(f"/proc/{process}/task")]
    return cpus, {thread: os.sched_getaffinity(thread) for thread in members}


def workers_by_cpu(one: Served) -> dict[int, set[bytes]]:
    """Who answers the clients of each CPU."""
    found: dict[int, set[bytes]] = {}
    for cpu in CPUS:
        with on_cpus({cpu}):
            found[cpu] = {worker(one.port) for _ in range(REQUESTS)}
    return found


def worker(port: int) -> bytes:
    with socket.create_connection((LOOPBACK, port)) as connection:
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        return WORKER.fullmatch(b"".join(iter(lambda: connection.recv(4096), b"")))[1]


def assert_local(one: Served) -> None:
    """A worker for each CPU, and no other answers there."""
    found = workers_by_cpu(one)
    assert all(len(workers) == 1 for workers in found.values()), found
    assert len(set.union(*found.values())) == len(CPUS), found


ENDS: dict[str, Callable[[Attached], object]] = {
    "Ctrl-C": lambda one: one.process.send_signal(signal.SIGINT),
    "SIGTERM": lambda one: one.process.terminate(),
    "SIGKILL": lambda one: one.process.kill(),
    "guard SIGKILL": lambda one: os.kill(one.guard, signal.SIGKILL),
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_the_server_is_as_it_was_found_however_it_ends(server, end):
    """Envoy does not tell which worker answers: tests/test_peers.py sees what is local."""
    before = state(server.pid)
    with attached(server.pid) as one:
        if server.server is not ENVOY:
            assert_local(server)
        end(one)
        one.wait()
    assert state(server.pid) == before


def test_no_connection_is_lost_when_it_comes_and_when_it_is_killed(server):
    with server.load(CPUS) as load, attached(server.pid) as one:
        one.process.kill()
        one.wait()
    assert set(load.total()) <= {"ok", "late"}, load.counts


def test_detach_ends_it(nginx):
    before = state(nginx.pid)
    with attached(nginx.pid) as one:
        done = fastsocket("detach", nginx.pid)
        assert (done.returncode, done.stderr) == (0, "")
        assert state(nginx.pid) == before
        assert one.wait() == 0
    assert_one_line(fastsocket("detach", nginx.pid), 1, "nothing is attached")


def test_the_guard_puts_changes_back_though_its_answer_was_never_read(monkeypatch):
    """The attaching process was killed between its question and the answer."""
    monkeypatch.setattr(guarding, "put_back", lambda pid: pytest.fail("the guard has put nothing back"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        change = ListenerGiven([os.getpid()], os.fstat(listener.fileno()).st_ino, NO_CPU, CPUS[0])
        with guarded(os.getpid()) as one:
            one._line.sendall(json.dumps(written(change)).encode() + b"\n")
            select.select([one._line], [], [])
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_INCOMING_CPU, CPUS[0])
        assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_INCOMING_CPU) == NO_CPU


def test_what_was_left_by_two_that_were_killed_at_once_is_put_back(nginx):
    before = state(nginx.pid)
    with attached(nginx.pid) as one:
        os.kill(one.guard, signal.SIGSTOP)
        guard = one.guard
        one.process.kill()
        os.kill(guard, signal.SIGKILL)
        one.wait()
    assert state(nginx.pid) != before
    assert fastsocket("detach", nginx.pid).returncode == 0
    assert state(nginx.pid) == before


def test_it_follows_a_reload_and_no_connection_is_lost(nginx):
    before = set(nginx.workers())
    with nginx.load(CPUS) as load, attached(nginx.pid, "--watch", "0.1") as one:
        os.kill(nginx.pid, signal.SIGHUP)
        wait_until(lambda: not before & {given["worker"] for given in one.read()["listeners"]}, "given anew")
        assert_local(nginx)
    assert set(load.total()) <= {"ok", "late"}, load.counts


def test_a_server_that_was_upgraded_meanwhile_is_as_it_was_found(tmp_path):
    """Nginx hands its listeners to a new master, and the old one ends."""
    with served(UPGRADABLE, tmp_path, preload=False) as one:
        old = one.pid
        with attached(old) as attach:
            os.kill(old, signal.SIGUSR2)
            wait_until(lambda: (tmp_path / "nginx.pid.oldbin").exists() and one.is_ready(), "the new master serves")
            os.kill(old, signal.SIGQUIT)
            attach.wait()
        assert set(state(one.pid)[0].values()) == {NO_CPU}


def test_an_address_that_is_another_servers_too_for_a_while_is_given_all_the_time(tmp_path):
    """It was given, so it is no obstacle later that it has a CPU."""
    with served(TWO_ADDRESSES, tmp_path, preload=False) as one, guarded(one.pid) as guard, socket.socket() as other:
        attachment = _Attachment(Process.at(one.pid), Watched(one.pid), True, guard)
        assert attachment.follow() and len(attachment.given) == 2 * len(CPUS)
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.2", one.port))
        other.listen()
        assert not attachment.follow()
        other.close()
        assert not attachment.follow() and len(attachment.given) == 2 * len(CPUS)


def test_a_worker_stands_for_its_server(nginx):
    with attached(nginx.workers()[0]) as one:
        assert one.told["server"] == nginx.pid
        assert sorted(given["cpu"] for given in one.told["listeners"]) == CPUS


def test_it_ends_with_the_server(tmp_path):
    with served(NGINX, tmp_path, preload=False) as one:
        attach = Attached(one.pid)
    assert attach.wait() == 0


def test_a_second_one_is_told_who_was_first(nginx):
    with attached(nginx.pid):
        assert_one_line(fastsocket("attach", "--pin", nginx.pid), 3, "attached already", f"detach {nginx.pid}")
        assert_local(nginx)


def test_workers_that_move_are_left_alone(nginx):
    before = state(nginx.pid)
    assert_one_line(fastsocket("attach", nginx.pid), 3, "moves between", "worker_cpu_affinity", "--pin")
    assert state(nginx.pid) == before


def test_a_shared_listener_is_left_alone(tmp_path):
    with served(SHARED, tmp_path, preload=False) as one:
        assert_one_line(fastsocket("attach", "--pin", one.pid), 3, "2 workers share", "reuseport")


def test_threads_that_share_an_epoll_are_left_alone(tmp_path):
    """Go's are known by the program: an idle one shows the same thread each time."""
    with by_turns(sys.executable) as pid:
        assert_one_line(fastsocket("attach", "--pin", pid), 3, "watched by 2 of the workers")
    program = tmp_path / "go"
    subprocess.run(["objcopy", "--add-section", ".go.buildinfo=/dev/null", Path(sys.executable).resolve(), program])
    with by_turns(str(program)) as pid:
        assert_one_line(fastsocket("attach", "--pin", pid), 3, "a Go program", "one epoll")


def test_a_preloaded_server_is_left_alone(tmp_path):
    with served(SHARED, tmp_path, preload=True) as one:
        assert_one_line(fastsocket("attach", "--pin", one.pid), 3, "libfsocket.so")


def test_a_port_that_another_server_shares_is_left_alone(nginx):
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind((LOOPBACK, nginx.port))
        other.listen()
        assert_one_line(fastsocket("attach", "--pin", nginx.pid), 3, "another server")


def test_a_listener_that_the_server_has_given_itself_is_left_alone(nginx):
    inode = Watched(nginx.pid).look()[1].inode
    with borrowed([nginx.pid], inode) as copy:
        copy.setsockopt(socket.SOL_SOCKET, socket.SO_INCOMING_CPU, CPUS[0])
    before = state(nginx.pid)
    assert_one_line(fastsocket("attach", "--pin", nginx.pid), 3, "SO_INCOMING_CPU")
    assert state(nginx.pid) == before


def test_a_process_that_is_not_there():
    assert_one_line(fastsocket("attach", 2**22), 2, "no process")
    assert_one_line(fastsocket("detach", "no-such-server"), 2, "no process")


def test_notes_that_cannot_be_kept(nginx):
    read_only = ["unshare", "-m", "sh", "-c", 'mount -t tmpfs -o ro none /run; exec "$@"', "sh"]
    command = [*read_only, *FASTSOCKET, "attach", "--pin", str(nginx.pid)]
    assert_one_line(subprocess.run(command, capture_output=True, text=True), 3, "/run", "Read-only")


def test_nothing_is_left_on_disk(nginx):
    with attached(nginx.pid) as one:
        assert (STATE / str(nginx.pid)).exists()
        one.process.kill()
        one.wait()
    assert not (STATE / str(nginx.pid)).exists()


@given(st.lists(st.sets(st.integers(0, 7), min_size=1), min_size=1, max_size=8))
def test_workers_are_spread_over_the_cpus_where_they_may_run(allowed):
    with suppress(CannotAttach):
        cpus = [next(iter(cpu)) for cpu in spread(allowed)]
        assert len(set(cpus)) == len(cpus)
        assert all(cpu in may for cpu, may in zip(cpus, allowed))


def test_as_many_cpus_as_workers_are_enough():
    assert spread([{0, 1}, {0, 1}]) == [{0}, {1}]
    assert spread([{0, 1}, {0}]) == [{1}, {0}]
