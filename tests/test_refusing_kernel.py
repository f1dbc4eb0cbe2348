"""A kernel that refuses what the library asks for: the server serves as without the library, and is told why."""

import subprocess

import pytest

from fastsocket import shared_memory
from fastsocket.build import LIBRARY
from tests.harness.apps import APPS, Server
from tests.harness.cpus import CPUS

pytestmark = [pytest.mark.timeout(60), pytest.mark.needs("gcc")]

# What is refused, and why the listener then has no clones.
NO_CLONES = {
    "affinity": "the CPU affinity cannot be read (Operation not permitted)",
    "SO_INCOMING_CPU": "this kernel ignores SO_INCOMING_CPU among SO_REUSEPORT listeners (Linux 6.2 or a backport has "
    "it)",
    "SO_REUSEPORT": "SO_REUSEPORT is refused (Operation not permitted)",
    "clones": "the listener cannot be cloned (Address already in use)",
}
# What is refused, and why no worker then adopts a clone.
NOT_ADOPTED = {
    "listening clones": "a clone of it cannot listen",
    "watched clones": "a clone of it cannot be watched",
}


@pytest.fixture(scope="module")
def refusing(tmp_path_factory):
    """The environment of a program whose kernel refuses something."""
    shim = tmp_path_factory.mktemp("kernel") / "refusing_kernel.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", shim, APPS / "refusing_kernel.c", "-ldl"], check=True)
    return lambda what: {"LD_PRELOAD": f"{LIBRARY} {shim}", "REFUSE": what}


def serves(server: Server) -> None:
    """From two workers, each on its CPU."""
    for cpu in CPUS:
        server.ask("fork", str(cpu), cpu)
    for cpu in CPUS:
        assert len(server.request(cpu, 10)) == 10


def why_not(server: Server) -> str:
    with shared_memory.SharedMemory(server.pid) as memory:
        (listener,) = memory.listeners()
    return listener.why_not


def log_of(reason: str) -> str:
    return f"libfsocket: {reason}; the application runs without Fastsocket on this listener\n"


@pytest.mark.parametrize("what", NO_CLONES)
def test_a_listener_that_cannot_be_cloned_serves_alone(refusing, what):
    with Server(refusing(what), log=log_of(NO_CLONES[what])) as server:
        server.listen()
        serves(server)
        assert server.total("adopted") == 0
        assert NO_CLONES[what].startswith(why_not(server))


@pytest.mark.parametrize("what", NOT_ADOPTED)
def test_a_clone_that_cannot_serve_is_left_alone(refusing, what):
    with Server(refusing(what)) as server:
        server.listen()
        serves(server)
        assert server.total("adopted") == 0
        assert why_not(server) == NOT_ADOPTED[what]


def test_without_memory_to_share_there_are_no_counters(refusing):
    with Server(
        refusing("memory"), log=log_of("no memory to share with the workers (Too many open files in system)")
    ) as server:
        server.listen()
        serves(server)
        with pytest.raises(shared_memory.NotPreloaded):
            shared_memory.counters(server.pid)


@pytest.mark.parametrize("what", ["nothing, but it is old", "netlink"])
def test_what_the_library_can_do_without(refusing, what):
    """An old kernel is tried. Where no kernel tells who else listens, a plain listener counts as the only one."""
    with Server(refusing(what)) as server:
        server.listen()
        serves(server)
        assert server.per_cpu("adopted") == [1, 1]
        assert why_not(server) == ""
