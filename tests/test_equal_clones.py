"""What a listener's owner set on it counts for every connection, whether the library has cloned the listener or not."""

import socket
import subprocess
from contextlib import ExitStack, contextmanager

import pytest

from fastsocket import shared_memory
from fastsocket.build import LIBRARY
from tests.harness.apps import LOOPBACK, App, Server, pids
from tests.harness.cpus import CPUS, NEEDS_TWO_CPUS
from tests.harness.needs import IPV6
from tests.harness.patience import patient
from tests.harness.waiting import wait_until
from tests.libfsocket_apps.loopback import on_cpus

PRELOAD = {"LD_PRELOAD": str(LIBRARY)}
MOMENTS = ["before bind", "after listen", "after adoption"]
HOSTS = [LOOPBACK, pytest.param("::1", marks=pytest.mark.needs(IPV6))]

pytestmark = [pytest.mark.timeout(60), NEEDS_TWO_CPUS]


@contextmanager
def options_app(environment: dict[str, str]):
    with on_cpus({CPUS[0]}), App("options.py", environment, log=None) as app:
        yield app


def differences(plain: list, with_library: list, options: list) -> list[str]:
    """Which option made which one of the accepted socket differ, and how."""
    return [
        f"{level}/{number}={value}: {what} is {one.get(what)}, and {other.get(what)} with the library"
        for (level, number, value), one, other in zip(
            options, map(as_dictionary, plain), map(as_dictionary, with_library)
        )
        for what in one | other
        if one.get(what) != other.get(what)
    ]


def as_dictionary(outcome: dict | str) -> dict:
    return outcome if isinstance(outcome, dict) else {"outcome": outcome}


@pytest.mark.slow
@pytest.mark.privileged
@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("moment", MOMENTS)
def test_an_accepted_socket_has_each_option_that_it_has_without_the_library(moment, host):
    with options_app({}) as plain, options_app(PRELOAD) as accelerated:
        options = plain.ask("settable", host)
        assert len(options) > 80
        outcomes = [app.ask("accepted", host, moment, options) for app in (plain, accelerated)]
        assert differences(*outcomes, options) == []
        adopted = sum(cpu.adopted for cpu in shared_memory.counters(accelerated.process))
        assert adopted > len(options) / 2


def test_a_clone_keeps_quick_acks_off(preload):
    """listen() turns them on again; HAProxy's tcp-smart-accept turns them off."""
    with options_app({}) as plain, options_app(preload) as accelerated:
        assert accelerated.ask("acks_at_once", LOOPBACK) == plain.ask("acks_at_once", LOOPBACK) == 0


# ---- guards


@pytest.fixture(params=["without the library", "with the library"])
def environment(request) -> dict[str, str]:
    """A guard that holds with the library is a guard only if it does without."""
    return PRELOAD if request.param == "with the library" else {}


@pytest.fixture
def elsewhere(own_network):
    """A network of the test's own, with a device called elsewhere, where no client is."""
    subprocess.run(["ip", "link", "add", "elsewhere", "type", "veth", "peer", "name", "other"], check=True)
    subprocess.run(["ip", "link", "set", "elsewhere", "up"], check=True)


def outcome_of_connecting(port: int, cpu: int) -> str:
    """ "answered", "refused" or, as when each SYN is dropped, "nothing"."""
    try:
        with on_cpus({cpu}), socket.create_connection((LOOPBACK, port), timeout=patient(0.4)) as client:
            client.sendall(b"\n")
            return "answered" if client.recv(1) else "closed"
    except ConnectionRefusedError:
        return "refused"
    except TimeoutError:
        return "nothing"


@contextmanager
def guarded(environment: dict[str, str], guard: str, moment: str):
    with Server(environment, log=None) as server:
        server.listen(LOOPBACK, False, True, 0, guard if moment == "before bind" else "")
        if moment == "after listen":
            server.ask("guard", guard)
        for cpu in CPUS:
            server.ask("fork", str(cpu), cpu)
        if moment == "after adoption":
            server.ask("tell", str(CPUS[1]), "guard", guard)
        yield server


@pytest.mark.slow
@pytest.mark.privileged
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize(
    "guard, outcome",
    [
        ("TCP-MD5", "nothing"),
        ("classic filter", "nothing"),
        ("eBPF filter", "nothing"),
        ("SO_BINDTODEVICE", "refused"),
        ("SO_BINDTOIFINDEX", "refused"),
    ],
)
def test_who_is_kept_away_from_a_listener_is_kept_away_from_its_clones(environment, elsewhere, guard, outcome, moment):
    with guarded(environment, guard, moment) as server:

        def outcomes() -> set[str]:
            return {outcome_of_connecting(server.port, cpu) for cpu in CPUS}

        assert outcomes() == {outcome}


@pytest.mark.privileged
def test_a_listener_of_another_network_namespace_listens_only_there(environment, own_network):
    """The server's own namespace is the test's; the listener's is a child's that sleeps in it."""
    with ExitStack() as stack:
        sleeper = stack.enter_context(
            subprocess.Popen(
                ["unshare", "--net", "sh", "-c", "ip link set lo up; echo; read x"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
        )
        sleeper.stdout.readline()
        with Server(environment, log=None) as server:
            server.know(server.ask("listen_elsewhere", f"/proc/{sleeper.pid}/ns/net", 5000))
            for cpu in CPUS:
                server.ask("fork", str(cpu), cpu)
            assert [outcome_of_connecting(server.port, cpu) for cpu in CPUS] == ["refused"] * 2
            there = subprocess.run(
                [
                    "nsenter",
                    f"--net=/proc/{sleeper.pid}/ns/net",
                    "bash",
                    "-c",
                    "exec 3<>/dev/tcp/127.0.0.1/5000; echo >&3; cat <&3",
                ],
                capture_output=True,
                text=True,
            )
            assert '"pid"' in there.stdout
        sleeper.communicate(b"\n")


@pytest.mark.parametrize("moment", MOMENTS)
def test_an_application_that_wants_a_signal_for_each_connection_gets_it(environment, moment):
    with Server(environment, log=None) as server:
        server.listen(LOOPBACK, False, True, 0, "O_ASYNC" if moment == "before bind" else "")
        if moment == "after listen":
            server.ask("guard", "O_ASYNC")
        server.ask("serve", CPUS[0])
        if moment == "after adoption":
            server.ask("guard", "O_ASYNC")
        wait_until(
            lambda: pids(server.request(CPUS[0], 1)) == {server.pid} and server.ask("signals_had") > 0,
            "a connection comes with its signal",
        )
