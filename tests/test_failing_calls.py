"""System calls of the library fail: the server serves as without the library, and is told why."""

import errno
import resource
import socket
import struct
import sys

import pytest

from fastsocket import shared_memory
from tests.harness.apps import APPS, LOOPBACK, PRELOAD, Server, pids
from tests.harness.cpus import CPUS, NEEDS_TWO_CPUS
from tests.harness.system_calls import Failing, numbers_by_name

A_CLONE = (512, 65535)  # its number: libfsocket/sockopt.c
BEHIND_THE_LISTENER = (4, 511)
SO_REUSEPORT, SO_RCVBUFFORCE, SO_INCOMING_CPU, SO_NETNS_COOKIE = 15, 33, 49, 71
F_SETLK, F_ADD_SEALS = 6, 1033
READ_AND_WRITE, MAP_SHARED = 3, 1
QUESTION_BYTES, ANSWER_BYTES = 72, 8192  # libfsocket/group.c
PROBE_BACKLOG = 16  # libfsocket/incoming_cpu.c

# The call that fails, and why the listener then has no clones.
NO_MEMORY = "no memory to share with the workers (Operation not permitted)"
CANNOT_CLONE = "the listener cannot be cloned (Operation not permitted)"
NO_CLONES = {
    "getrlimit of descriptors": (
        ("prlimit64", {"a1": resource.RLIMIT_NOFILE, "a2": 0}),
        "clones for all CPUs would take more than a 16th of the descriptors (ulimit -n)",
    ),
    "getrlimit of files": (("prlimit64", {"a1": resource.RLIMIT_FSIZE, "a2": 0}), NO_MEMORY),
    "ftruncate": (("ftruncate", {}), NO_MEMORY),
    "seals": (("fcntl", {"a1": F_ADD_SEALS}), NO_MEMORY),
    "mmap": (("mmap", {"a2": READ_AND_WRITE, "a3": MAP_SHARED}), NO_MEMORY),
    "socket": (("socket", {"a2": socket.IPPROTO_TCP}), CANNOT_CLONE),
    "SO_NETNS_COOKIE": (("getsockopt", {"a2": SO_NETNS_COOKIE}), CANNOT_CLONE),
    "SO_REUSEPORT": (("setsockopt", {"a0": A_CLONE, "a2": SO_REUSEPORT}), CANNOT_CLONE),
    "SO_INCOMING_CPU": (("setsockopt", {"a0": A_CLONE, "a2": SO_INCOMING_CPU}), CANNOT_CLONE),
}
# What the library can do without.
NOT_NEEDED = {
    "the question who else listens": ("sendto", errno.EPERM, {"a2": QUESTION_BYTES}),
    "the answer who else listens": ("recvfrom", errno.EPERM, {"a2": ANSWER_BYTES}),
    "the lock on the listener": ("fcntl", errno.EAGAIN, {"a1": F_SETLK}),
}
# On a kernel that looks old: why it cannot be tried.
NOT_TRIED = {
    "listen": ("listen", {"a1": PROBE_BACKLOG}),
    "connect": ("connect", {}),
    "SO_REUSEPORT": ("setsockopt", {"a0": BEHIND_THE_LISTENER, "a2": SO_REUSEPORT}),
    "SO_INCOMING_CPU": ("setsockopt", {"a2": SO_INCOMING_CPU}),
    "socket": ("socket", {"a1": socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, "a2": 0}),
    "sched_setaffinity": ("sched_setaffinity", {}),
}
OLD_KERNEL = ["setarch", "--uname-2.6"]

pytestmark = [pytest.mark.timeout(60), pytest.mark.needs("gcc"), NEEDS_TWO_CPUS]


@pytest.fixture(scope="module")
def failing(tmp_path_factory) -> Failing:
    return Failing(tmp_path_factory.mktemp("failing"))


def serves(server: Server, pinned: bool = True) -> None:
    """From two workers."""
    for cpu in CPUS:
        server.ask("fork", str(cpu), cpu if pinned else None)
    for cpu in CPUS:
        assert len(server.request(cpu, 10)) == 10


def why_not(server: Server) -> list[str]:
    with shared_memory.SharedMemory(server.pid) as memory:
        return [listener.why_not for listener in memory.listeners()]


def assignments(environment: dict[str, str]) -> list[str]:
    """For env(1), behind a launcher that the calls are not to fail in."""
    return [f"{name}={value}" for name, value in environment.items()]


def log_of(reason: str) -> str:
    return f"libfsocket: {reason}; the application runs without Fastsocket on this listener\n"


@pytest.mark.parametrize("what", NO_CLONES)
def test_a_listener_that_cannot_be_cloned_serves_alone(failing, what):
    (call, arguments), reason = NO_CLONES[what]
    with Server(failing(call, **arguments), log=log_of(reason)[: len("libfsocket: ") + len(reason)]) as server:
        server.listen()
        serves(server)
        assert server.ask("open_clones") == 0
        if reason != NO_MEMORY:
            assert reason.startswith(why_not(server)[0])


@pytest.mark.parametrize("what", NOT_NEEDED)
def test_what_the_library_can_do_without(failing, what):
    call, error, arguments = NOT_NEEDED[what]
    with Server(failing(call, error, **arguments)) as server:
        server.listen()
        serves(server)
        assert server.per_cpu("adopted") == [1, 1]
        assert server.per_cpu("accepted_local") == [10, 10]


def test_without_an_answer_a_group_of_the_application_may_have_other_members(failing):
    with Server(failing("sendto", a2=QUESTION_BYTES)) as server:
        server.listen(LOOPBACK, False, True, 0, "", True)
        serves(server)
        assert server.total("adopted") == 0
        assert why_not(server) == ["another program listens on its address, too"]


def test_shards_that_cannot_be_marked_serve_as_without_the_library(failing):
    with Server(failing("setsockopt", a2=SO_INCOMING_CPU), log="libfsocket: the listener cannot be cloned") as server:
        server.know(server.ask("listen_as_shards", CPUS, "not"))
        for index, cpu in enumerate(CPUS):
            server.ask("choose_shard", index)
            server.ask("fork", str(index), cpu)
        assert len(server.request(CPUS[0], 10)) == 10
        assert server.total("adopted") == 0
        assert "SO_INCOMING_CPU is refused" in why_not(server)


def test_a_worker_that_cannot_be_pinned_is_not(failing):
    with Server(failing("sched_setaffinity") | {"FSOCKET_PIN": "always"}) as server:
        server.listen()
        serves(server, pinned=False)
        assert (server.total("adopted"), server.total("fallen_back")) == (0, 2)


def test_buffers_that_only_root_may_enlarge_are_as_large_as_others_may_have_them(failing):
    """The clone of a worker that comes to a CPU which was not the server's copies what the listener has."""
    option = (socket.SOL_SOCKET, socket.SO_RCVBUF)
    environment = assignments(failing("setsockopt", a2=SO_RCVBUFFORCE))
    with Server({}, launcher=["taskset", "--cpu-list", str(CPUS[1]), "env", *environment]) as server:
        server.listen()
        server.ask("set_option", *option, struct.pack("i", 40000).hex())
        worker = server.ask("fork", "a", CPUS[0])
        (answer,) = server.request(CPUS[0], 1)
        assert (answer["pid"], answer["options"]) == (worker["pid"], [struct.pack("i", 80000).hex()])
        assert server.per_cpu("accepted_local") == [1, 0]


@pytest.mark.parametrize("what", NOT_TRIED)
def test_an_old_kernel_that_cannot_be_tried_makes_no_clones(failing, what):
    call, arguments = NOT_TRIED[what]
    environment = assignments(failing(call, **arguments))
    reason = "libfsocket: it could not be tried whether the kernel steers by SO_INCOMING_CPU (Operation not permitted)"
    with Server({}, log=reason, launcher=[*OLD_KERNEL, "env", *environment]) as server:
        server.listen()
        serves(server, pinned=False)
        assert server.ask("open_clones") == 0


def test_an_old_kernel_is_not_tried_under_a_filter_of_others():
    """It may kill a process that pins itself."""
    forbidden = numbers_by_name()["sched_setaffinity"]
    launcher = [*OLD_KERNEL, sys.executable, str(APPS / "forbidding.py"), "kill", str(forbidden)]
    with Server(PRELOAD, log="libfsocket: it could not be tried", launcher=launcher) as server:
        server.listen()
        server.ask("fork", "a")
        assert len(server.request(CPUS[0], 10)) == 10


def test_an_old_kernel_is_tried_once():
    with Server(PRELOAD, launcher=OLD_KERNEL) as server:
        server.ask("listen_also")
        server.listen()
        assert server.ask("open_clones") == 2 * len(CPUS) + 1  # and the shared memory
        worker = server.ask("fork", "a", CPUS[0])
        assert pids(server.request(CPUS[0], 10)) == {worker["pid"]}
