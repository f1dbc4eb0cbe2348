"""Receive Flow Deliver for active connections: which source port a connection gets, and that nothing else changes.

The connections are those of libfsocket_apps/connector.py, over loopback devices; where a test changes what all
processes share, they are in namespaces of their own.
"""

import errno
import itertools
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastsocket import shared_memory
from fastsocket.build import HERE
from fastsocket.shared_memory import CpuCounters
from tests.harness.apps import PRELOAD, SANITIZED, App, compiled, preloading
from tests.harness.cpus import CPUS, NEEDS_TWO_CPUS
from tests.harness.needs import IPV6
from tests.harness.system_calls import Failing
from tests.harness.waiting import wait_until
from tests.libfsocket_apps.loopback import on_cpus

LOOPBACK = {"inet": "127.0.0.1", "inet6": "::1"}
FAMILIES = ["inet", pytest.param("inet6", marks=pytest.mark.needs(IPV6))]
ON = {"FSOCKET_FLOW_DELIVER": "on"}
GRND_NONBLOCK = 1
WAYS = [(), ("nonblocking",), ("no_port",), ("no_port", "nonblocking"), ("duplicate",)]

pytestmark = [pytest.mark.timeout(60), NEEDS_TWO_CPUS]


@pytest.fixture(scope="module", params=["plain", SANITIZED])
def preload(request) -> dict[str, str]:
    return preloading(request.param) | ON


class Connector(App):
    """libfsocket_apps/connector.py."""

    def __init__(self, environment: dict[str, str], launcher: list[str] | None = None):
        with on_cpus(CPUS):
            super().__init__("connector.py", environment, launcher=launcher or [])

    def connect(self, cpu: int, port: int, host: str = LOOPBACK["inet"], **wishes) -> dict:
        return self.ask("connect", cpu, host, port, wishes)

    def connect_many(self, number: int, cpu: int, port: int, host: str = LOOPBACK["inet"], **wishes) -> list[dict]:
        return self.ask("connect_many", number, cpu, host, port, wishes)

    def counted(self, name: str) -> dict[int, int]:
        counters: list[CpuCounters] = shared_memory.counters(self.ask("pid"))
        return {cpu: getattr(counters[cpu], name) for cpu in CPUS}


@pytest.fixture
def connector(preload) -> Iterator[Connector]:
    with Connector(preload) as connector:
        yield connector


def possible_cpus() -> int:
    return int(open("/sys/devices/system/cpu/possible").read().replace(",", "-").split("-")[-1]) + 1


def bits_of(cpus: int) -> int:
    return 2 ** (cpus - 1).bit_length() - 1


def core_of(port: int, cpus: int | None = None) -> int:
    cpus = cpus or possible_cpus()
    core = port & bits_of(cpus)
    return core if core < cpus else core - cpus


def cores(connections: list[dict]) -> set[int]:
    assert {connection["answer"] for connection in connections} <= {0, "EINPROGRESS"}
    return {core_of(connection["port"]) for connection in connections}


# ---- the port


@pytest.mark.needs("gcc")
def test_the_core_of_a_port(tmp_path):
    (tmp_path / "core.c").write_text(
        '#define _GNU_SOURCE\n#include <stdio.h>\n#include "ports.h"\nint main(void) { unsigned int port, cpus;\n'
        'while (scanf("%u %u", &port, &cpus) == 2) printf("%u\\n", core_of_port((uint16_t)port, cpus));\nreturn 0; }\n'
    )
    subprocess.run(["gcc", "-I", HERE / "libfsocket", "-o", "core", "core.c"], cwd=tmp_path, check=True)

    @settings(max_examples=30, deadline=None)
    @given(st.lists(st.tuples(st.integers(0, 65535), st.integers(1, 1024) | st.integers(1, 12)), max_size=50))
    def agrees(questions):
        asked = "\n".join(f"{port} {cpus}" for port, cpus in questions)
        answers = subprocess.run([tmp_path / "core"], input=asked, capture_output=True, text=True).stdout.split()
        assert [int(answer) for answer in answers] == [core_of(*question) for question in questions]
        assert all(core_of(*question) < question[1] for question in questions)

    agrees()


@pytest.mark.parametrize("way", WAYS, ids=" ".join)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_connection_has_a_port_of_its_cpu(connector, family, way):
    host = LOOPBACK[family]
    port = connector.ask("listen", host)
    wishes = dict.fromkeys(way, True) | ({"bind": [host, 0]} if "no_port" in way else {})
    for cpu in CPUS:
        connections = connector.connect_many(20, cpu, port, host, **wishes)
        assert cores(connections) == {cpu}
        assert {connection["range"] for connection in connections} == {0}
    assert connector.counted("delivered") == dict.fromkeys(CPUS, 20)
    assert connector.counted("undelivered") == dict.fromkeys(CPUS, 0)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_address_bound_without_a_port_gets_one_of_the_cpu_at_once(connector, family):
    host = LOOPBACK[family]
    port = connector.ask("listen", host)
    for cpu in CPUS:
        connections = connector.connect_many(20, cpu, port, host, bind=[host, 0])
        assert cores(connections) == {cpu}
        assert all(connection["bound"] == connection["port"] for connection in connections)
    assert connector.counted("delivered") == dict.fromkeys(CPUS, 20)


def test_a_thread_and_a_child_connect_from_their_cpu(connector):
    port = connector.ask("listen", LOOPBACK["inet"])
    for cpu in [*CPUS, *CPUS]:
        assert cores([connector.ask("connect_on_thread", cpu, LOOPBACK["inet"], port, {})]) == {cpu}
        assert cores(connector.ask("connect_in_child", 5, cpu, LOOPBACK["inet"], port, {})) == {cpu}


def test_the_ports_of_a_child_are_not_those_of_its_parent(connector):
    """What it has inherited must not be the order in which its parent goes on."""
    port = connector.ask("listen", LOOPBACK["inet"])
    connector.connect(CPUS[0], port)
    used = [
        [connection["port"] for connection in connector.ask("connect_in_child", 5, CPUS[0], LOOPBACK["inet"], port, {})]
        for _ in range(2)
    ]
    used.append([connection["port"] for connection in connector.connect_many(5, CPUS[0], port)])
    assert all(set(one) != set(other) for one, other in itertools.combinations(used, 2))


def test_ports_do_not_follow_each_other(connector):
    port = connector.ask("listen", LOOPBACK["inet"])
    ports = [connection["port"] for connection in connector.connect_many(50, CPUS[0], port)]
    assert len({later - earlier for earlier, later in itertools.pairwise(ports)}) > 40


def test_what_the_application_chose_stays(connector):
    port = connector.ask("listen", LOOPBACK["inet"])
    for cpu, own_ports in zip(CPUS, (free_ports(4), free_ports(8)[4:])):
        for own in own_ports:
            connection = connector.connect(cpu, port, bind=[LOOPBACK["inet"], own])
            assert (connection["answer"], connection["port"], connection["range"]) == (0, own, 0)
        own_range = 40000 | 40999 << 16  # wide, as a port that anybody bound within the last minute is passed over
        for connection in connector.connect_many(5, cpu, port, range=own_range):
            assert 40000 <= connection["port"] <= 40999 and connection["range"] == own_range


def free_ports(number: int) -> list[int]:
    """Outside the range from which ports are chosen."""
    return [20000 + os.getpid() % 5000 + nth for nth in range(number)]


def test_it_is_off_unless_asked_for(preload):
    with Connector(preload | {"FSOCKET_FLOW_DELIVER": ""}) as connector:
        port = connector.ask("listen", LOOPBACK["inet"])
        assert cores(connector.connect_many(40, CPUS[0], port) + connector.connect_many(40, CPUS[1], port)) != set()
        assert sum(connector.counted("delivered").values()) + sum(connector.counted("undelivered").values()) == 0


# ---- what the application sees


def test_odd_calls_answer_as_without_the_library(preload):
    seen = []
    for environment in (preload, {}):
        with Connector(environment) as connector:
            seen.append(connector.ask("odd_calls", connector.ask("listen", LOOPBACK["inet"])))
    assert seen[0] == seen[1]


@pytest.mark.parametrize("how", ["bind", "listen"])
def test_a_disconnected_socket_may_have_any_port_again(connector, how):
    port = connector.ask("listen", LOOPBACK["inet"])
    assert connector.ask("use_again", CPUS[0], port, how) == 0


@pytest.mark.parametrize("how", ["refused", "disconnected", "shut down"])
def test_a_port_that_came_to_nothing_is_not_the_next_one(preload, how):
    """Else a socket that connects to its own former port meets itself."""
    for environment in ({}, preload):
        with Connector(environment) as connector:
            assert [connector.ask("connect_to_itself", cpu, how) for cpu in CPUS] == ["ECONNREFUSED"] * len(CPUS)


def test_what_a_vforked_child_closes_stays_its_parents(connector):
    port = connector.ask("listen", LOOPBACK["inet"])
    assert connector.ask("range_after_spawn", CPUS[0], port) == 0


def test_an_interrupted_connect_is_not_tried_again(connector):
    assert connector.ask("interrupt_connect", CPUS[0]) == ["EINTR", "EALREADY", 0]


# ---- namespaces of its own


def confined(*settings: str) -> list[str]:
    """In a network namespace where these have been set, and all is quick."""
    script = "ip link set lo up; " + "".join(
        f"echo {value} > /proc/sys/net/ipv4/{name}; " for name, value in (setting.split("=") for setting in settings)
    )
    return ["unshare", "--net", "sh", "-ec", script + 'exec "$@"', "sh"]


@pytest.mark.privileged
def test_when_all_ports_of_the_cpu_are_taken_the_kernel_chooses(preload):
    """Of spare ports it tries some, and not all."""
    with Connector(preload, confined("ip_local_port_range=40000 40039")) as connector:
        port = connector.ask("listen", LOOPBACK["inet"])
        free = [number for number in range(40000, 40040) if number != port]
        own = [number for number in free if number & bits_of(possible_cpus()) == CPUS[0]]
        connections = connector.connect_many(41, CPUS[0], port)
        chosen = [connection["port"] for connection in connections[:39]]
        assert connections[-1]["answer"] == "EADDRNOTAVAIL"
        assert sorted(chosen[: len(own)]) == own
        assert sorted(chosen) == free
        delivered = sum(core_of(number) == CPUS[0] for number in chosen)
        assert connector.counted("delivered")[CPUS[0]] == delivered
        assert connector.counted("undelivered")[CPUS[0]] == 39 - delivered
        assert {connection["range"] for connection in connections} == {0}


def ports_from_40000(of_each_cpu: int) -> str:
    """A setting: a range with so many own ports of each CPU."""
    return f"ip_local_port_range=40000 {39999 + of_each_cpu * (bits_of(possible_cpus()) + 1)}"


@pytest.mark.privileged
def test_many_destinations_share_a_port(preload):
    with Connector(preload, confined(ports_from_40000(2))) as connector:
        port = connector.ask("listen", "0.0.0.0")
        for nth in range(1, 100):
            for cpu in CPUS:
                assert cores([connector.connect(cpu, port, f"127.0.0.{nth}")]) == {cpu}
        assert connector.counted("delivered") == dict.fromkeys(CPUS, 99)


@pytest.mark.privileged
@pytest.mark.parametrize("reuse, delivered", [("0", False), ("1", True)])
def test_ports_in_time_wait_are_the_kernels_to_judge(preload, reuse, delivered):
    """It lets connect() have them after a second, or not at all."""
    with Connector(preload, confined(ports_from_40000(4), f"tcp_tw_reuse={reuse}")) as connector:
        port = connector.ask("listen", LOOPBACK["inet"])
        while connector.connect(CPUS[0], port)["answer"] == 0:
            pass
        connector.ask("close_connections")
        if not delivered:
            assert connector.connect(CPUS[0], port)["answer"] == "EADDRNOTAVAIL"
        else:
            wait_until(lambda: connector.connect(CPUS[0], port)["answer"] == 0, "a port is free again")
            assert cores(connector.connect_many(2, CPUS[0], port)) == {CPUS[0]}


@pytest.mark.privileged
def test_a_range_that_changes_is_noticed(preload):
    """First ports out of it, which the kernel takes for no wish at all; then, after a look, those in it."""
    with Connector(preload, confined("ip_local_port_range=40000 40999")) as connector:
        port = connector.ask("listen", LOOPBACK["inet"])
        pid = connector.ask("pid")
        assert cores(connector.connect_many(5, CPUS[0], port)) == {CPUS[0]}
        subprocess.run(
            [
                "nsenter",
                "--net",
                "-t",
                str(pid),
                "sh",
                "-c",
                "echo 50000 59999 > /proc/sys/net/ipv4/ip_local_port_range",
            ],
            check=True,
        )

        def ports_follow() -> bool:
            connections = connector.connect_many(10, CPUS[0], port)
            connector.ask("close_connections")
            assert all(connection["port"] >= 50000 for connection in connections)
            return cores(connections) == {CPUS[0]}

        wait_until(ports_follow, "ports of the new range are chosen")


@pytest.mark.privileged
@pytest.mark.parametrize("cpus", [3, 5, 6])
def test_spare_ports_of_a_number_of_cpus_that_is_no_power_of_two(preload, tmp_path, cpus):
    """A kernel that says it has more CPUs: own ports first, then spare ones, then the kernel's choice."""
    (tmp_path / "possible").write_text(f"0-{cpus - 1}\n")
    launcher = [
        "unshare",
        "--mount",
        "sh",
        "-ec",
        f'mount --bind {tmp_path}/possible /sys/devices/system/cpu/possible; exec "$@"',
        "sh",
    ]
    with Connector(preload, [*launcher, *confined("ip_local_port_range=40000 40031")]) as connector:
        port = connector.ask("listen", LOOPBACK["inet"])
        for cpu in CPUS:
            own, spare = [
                [number for number in range(40000, 40032) if number & bits_of(cpus) == bits and number != port]
                for bits in (cpu, cpu + cpus)
            ]
            ports = [connection["port"] for connection in connector.connect_many(len(own) + len(spare), cpu, port)]
            assert sorted(ports[: len(own)]) == sorted(own)
            assert bool(set(ports) & set(spare)) == bool(spare)
            delivered = [number for number in ports if core_of(number, cpus) == cpu]
            assert set(delivered) <= {*own, *spare} and connector.counted("delivered")[cpu] == len(delivered)


def hiding(path: str, text: str, directory: Path) -> list[str]:
    """In a mount namespace where a file says something else."""
    (directory / "instead").write_text(text)
    return ["unshare", "--mount", "sh", "-ec", f'mount --bind {directory}/instead {path}; exec "$@"', "sh"]


POSSIBLE, LOCAL_PORTS = "/sys/devices/system/cpu/possible", "/proc/sys/net/ipv4/ip_local_port_range"


@pytest.mark.privileged
@pytest.mark.parametrize("possible", ["0", "0-4095"])
def test_on_machines_for_which_it_is_not_meant_the_kernel_chooses(preload, tmp_path, possible):
    """One CPU, and more CPUs than the library has counters for."""
    with Connector(preload, hiding(POSSIBLE, possible, tmp_path)) as connector:
        port = connector.ask("listen", LOOPBACK["inet"])
        assert {connection["answer"] for connection in connector.connect_many(20, CPUS[0], port)} == {0}
        counters = shared_memory.counters(connector.ask("pid"))
        assert {(cpu.delivered, cpu.undelivered) for cpu in counters} == {(0, 0)}


@pytest.mark.privileged
@pytest.mark.parametrize("ports", ["", "0 0", "50000 40000", "40000 70000"])
def test_a_range_that_makes_no_sense_is_not_taken(preload, tmp_path, ports):
    with Connector(preload, hiding(LOCAL_PORTS, ports, tmp_path)) as connector:
        port = connector.ask("listen", LOOPBACK["inet"])
        assert cores(connector.connect_many(20, CPUS[0], port)) == {CPUS[0]}


@pytest.mark.privileged
def test_without_proc_and_sys_ports_are_of_the_cpu():
    """The kernel's own range is not known: the usual one counts. (AddressSanitizer needs /proc itself.)"""
    launcher = [
        "unshare",
        "--mount",
        "sh",
        "-ec",
        'exec 3<"$0"; mount -t tmpfs none /sys; mount -t tmpfs none /proc; exec "$@"',
        "/dev/null",
    ]
    with Connector(PRELOAD | ON, launcher) as connector:
        port = connector.ask("listen", LOOPBACK["inet"])
        assert cores(connector.connect_many(20, CPUS[0], port)) == {CPUS[0]}


@pytest.mark.privileged
def test_a_range_without_a_port_of_the_cpu_leaves_the_choice_to_the_kernel(preload):
    """And with one port of each CPU, that one is taken."""
    for last, delivered in (("40000", 0), ("40001", 1)):
        with Connector(preload, confined(f"ip_local_port_range=40000 {last}")) as connector:
            port = connector.ask("listen_at", LOOPBACK["inet"], 30000)
            odd = next(cpu for cpu in CPUS if cpu % 2)
            assert connector.connect(odd, port)["answer"] == 0
            assert connector.counted("delivered")[odd] == delivered


def test_without_random_numbers_the_kernel_chooses(preload, tmp_path):
    """As at boot, when the kernel has too few."""
    fails = Failing(tmp_path)("getrandom", errno.EAGAIN, a1=GRND_NONBLOCK)
    with Connector(preload | fails) as connector:
        port = connector.ask("listen", LOOPBACK["inet"])
        assert {connection["answer"] for connection in connector.connect_many(20, CPUS[0], port)} == {0}
        assert connector.counted("delivered")[CPUS[0]] + connector.counted("undelivered")[CPUS[0]] == 20


@pytest.mark.privileged
def test_a_program_that_listens_nowhere_connects_from_its_cpu(preload):
    with Connector({}) as server, Connector(preload) as connector:
        port = server.ask("listen", LOOPBACK["inet"])
        for cpu in CPUS:
            assert cores(connector.connect_many(20, cpu, port)) == {cpu}
        with pytest.raises(shared_memory.NotPreloaded):
            connector.counted("delivered")


@pytest.mark.parametrize("option", ["-DALL", "-DONE"])
def test_a_kernel_without_port_ranges_of_sockets_chooses_itself(preload, tmp_path, option):
    refusing = compiled("refusing.c", tmp_path, option, "-shared", "-fPIC")
    with Connector(preload | {"LD_PRELOAD": f"{preload['LD_PRELOAD']} {refusing}"}) as connector:
        port = connector.ask("listen", LOOPBACK["inet"])
        for wishes in ({}, {"bind": [LOOPBACK["inet"], 0]}, {"nonblocking": True}):
            connections = [connection for cpu in CPUS for connection in connector.connect_many(20, cpu, port, **wishes)]
            assert {connection["answer"] for connection in connections} <= {0, "EINPROGRESS"}
            assert all(connection["port"] for connection in connections)
        delivered, undelivered = connector.counted("delivered"), connector.counted("undelivered")
        assert all(delivered[cpu] + undelivered[cpu] == 60 for cpu in CPUS)
