"""What the library does beside its work harms nothing: stderr, filters of system calls, small stacks, limits."""

import os
import platform
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.harness.apps import APPS, LOOPBACK, PRELOAD, App, Server, compiled, pids
from tests.harness.cpus import CPUS, NEEDS_TWO_CPUS
from tests.harness.two_workers import ask_all, two_workers

# What the library calls, and a server in Python does not once it serves.
X86_64 = {
    "sched_setaffinity": 203,
    "tgkill": 234,
    "kill": 62,
    "listen": 50,
    "memfd_create": 319,
    "ftruncate": 77,
    "bind": 49,
}

pytestmark = [
    pytest.mark.timeout(60),
    pytest.mark.needs("gcc"),
    NEEDS_TWO_CPUS,
]
only_x86_64 = pytest.mark.skipif(platform.machine() != "x86_64", reason="system calls have other numbers")


# ---- stderr


@pytest.mark.parametrize("kind", ["full pipe", "pipe without reader", "full device", "file at its limit", "nothing"])
def test_a_server_whose_stderr_takes_nothing_is_served(two_workers_program, kind):
    """The library has something to say: there are too few descriptors for clones."""
    launcher = ["prlimit", "--nofile=30", sys.executable, str(APPS / "stderr_of.py"), kind]
    with two_workers(two_workers_program, PRELOAD | {"FSOCKET_VERBOSE": "on"}, launcher, None) as app:
        ask_all(app)


@pytest.mark.parametrize("directory", ["/tmp", "/dev/shm"])
def test_a_file_that_the_application_opened_as_descriptor_2_holds_what_the_application_wrote(directory):
    """On the file system of the former descriptor 2, or on another one."""
    with tempfile.TemporaryDirectory(dir=directory) as temporary:
        file = Path(temporary) / "database"
        with Server(PRELOAD | {"FSOCKET_VERBOSE": "on"}) as server:
            server.ask("replace_stderr", str(file))
            server.ask("limit_descriptors", 30)
            server.listen()
            server.ask("fork", "a", CPUS[0])
            assert len(server.request(CPUS[0], 5)) == 5
        assert file.read_bytes() == b""


def test_a_server_that_has_closed_its_stderr_is_served():
    with Server(PRELOAD | {"FSOCKET_VERBOSE": "on"}) as server:
        server.ask("close_one", 2)
        server.ask("limit_descriptors", 30)
        server.listen()
        server.ask("fork", "a", CPUS[0])
        assert len(server.request(CPUS[0], 5)) == 5


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server((LOOPBACK, 0)) as listener:
        return socket.create_connection(listener.getsockname()), listener.accept()[0]


@pytest.mark.parametrize(
    "pair, said", [(socket.socketpair, b"libfsocket: FSOCKET_PIN=perhaps"), (tcp_pair, b"")], ids=["Unix", "TCP"]
)
def test_a_line_goes_to_a_journal_and_not_to_a_client(pair, said):
    """The journal of systemd is a Unix socket. A program that inetd starts has its client as stderr."""
    theirs, ours = pair()
    with ours:
        with theirs:
            environment = {**os.environ, **PRELOAD, "FSOCKET_PIN": "perhaps"}
            subprocess.run(["true"], stderr=theirs, env=environment, check=True)
        line = ours.makefile("rb").readline()
    assert line.startswith(said) and bool(line) == bool(said)


SIGNALS_STAY_PENDING = """
import os, resource, signal, socket
both = {signal.SIGPIPE, signal.SIGXFSZ}
for each in both:
    signal.signal(each, signal.SIG_DFL)
signal.pthread_sigmask(signal.SIG_BLOCK, both)
for each in both:
    os.kill(os.getpid(), each)
resource.setrlimit(resource.RLIMIT_NOFILE, (30, 30))
socket.create_server(("127.0.0.1", 0))
print(signal.sigpending() == both)
"""


def test_signals_that_were_pending_before_a_line_are_pending_afterwards():
    """A line may raise them. Those that it raises itself do not reach the application."""
    done = subprocess.run(
        [sys.executable, "-c", SIGNALS_STAY_PENDING], env={**os.environ, **PRELOAD}, capture_output=True, text=True
    )
    assert (done.stdout, done.stderr.count("libfsocket: ")) == ("True\n", 1)


def test_a_line_is_written_once_however_many_listeners_there_are():
    """More than the library has places for."""
    with Server(PRELOAD, log="libfsocket: the server has more than 64 listeners") as server:
        for _ in range(80):
            server.ask("listen_also")
        server.listen()
        server.ask("fork", "a", CPUS[0])
        assert len(server.request(CPUS[0], 5)) == 5


# ---- seccomp


@only_x86_64
@pytest.mark.parametrize("pinned", [True, False])
def test_a_server_that_was_started_with_a_filter_is_not_pinned(pinned):
    launcher = [sys.executable, str(APPS / "forbidding.py"), "kill", str(X86_64["sched_setaffinity"])]
    if pinned:
        launcher = ["taskset", "--cpu-list", str(CPUS[0]), *launcher]
    with Server(PRELOAD, launcher=launcher) as server:
        server.listen()
        workers = [server.ask("fork", name) for name in "ab"]
        cpus = CPUS[:1] if pinned else CPUS
        assert [worker["cpus"] for worker in workers] == [cpus] * 2
        for cpu in CPUS:
            assert pids(server.request(cpu, 10)) <= {worker["pid"] for worker in workers}


@only_x86_64
@pytest.mark.parametrize(
    "moment", ["before listen", "after listen", "before it waits again", "before it watches again"]
)
@pytest.mark.parametrize("pinned", [True, False])
@pytest.mark.parametrize("how", ["prctl", "syscall"])
def test_a_server_that_installs_a_filter_itself_is_served(moment, pinned, how):
    """It forbids what the library calls, and the server, from then on, does not."""
    needed = {"listen", "bind"} if moment == "before listen" else set()
    if pinned and not moment.endswith("again"):
        needed = needed | {"sched_setaffinity"}
    forbidden = [number for name, number in X86_64.items() if name not in needed]
    with Server(PRELOAD) as server:
        if moment == "before listen":
            server.ask("forbid_calls", forbidden, how)
        server.listen()
        if moment == "after listen":
            server.ask("forbid_calls", forbidden, how)
        workers = [server.ask("fork", name, cpu) for name, cpu in zip("ab", CPUS if pinned else [None, None])]
        if moment.endswith("again"):
            for name in "ab":
                server.ask("tell", name, "forbid_calls", forbidden, how)
        if moment == "before it watches again":
            for name in "ab":
                server.ask("tell", name, "delete")
                server.ask("tell", name, "add")
        for cpu in CPUS:
            assert pids(server.request(cpu, 10)) <= {worker["pid"] for worker in workers}


# ---- limits


@pytest.fixture(scope="module")
def small_stacks(tmp_path_factory) -> Path:
    return compiled("small_stacks.c", tmp_path_factory.mktemp("small_stacks"), "-pthread")


@pytest.mark.parametrize("environment", [{}, PRELOAD], ids=["without the library", "with the library"])
def test_threads_with_the_smallest_stack_may_make_each_call(small_stacks, environment):
    with App([str(small_stacks), str(CPUS[0])], environment) as app:
        assert app.read_all() == ["ok"]


@pytest.mark.parametrize("limit", [64, 256, 1024])
def test_clones_take_no_more_than_a_16th_of_the_descriptors(limit):
    listeners = limit // 16 // len(CPUS) + 3
    with Server(PRELOAD, log="libfsocket: clones for all CPUs would take more than a 16th") as server:
        before = server.ask("count_descriptors")
        server.ask("limit_descriptors", limit)
        for _ in range(listeners):
            server.ask("listen_also")
        assert server.ask("count_descriptors") - before - listeners <= limit // 16 + 1


@pytest.mark.parametrize("limit", [100, 256, 1024])
def test_the_next_descriptor_has_the_number_that_it_would_have(limit):
    """Daemons close 0 to 2, and open them again by their order."""
    with Server(PRELOAD) as server:
        server.ask("limit_descriptors", limit)
        descriptor = server.listen()["descriptor"]
        assert server.ask("open_clones" if limit == 1024 else "count_descriptors") > len(CPUS)
        assert server.ask("open_many", 2) == [descriptor + 1, descriptor + 2]
