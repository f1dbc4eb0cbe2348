"""The network: real namespaces, a real multi-queue link, and packets that arrive where the emulated NIC says."""

import os
import socket
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest

from fastsocket.steering import EmulatedNic, Plan
from fastsocket.steering.ports import core_of_port
from probes.trial import Probes
from tests.harness.cpus import ALL_CPUS, NEEDS_TWO_CPUS
from tests.harness.testbeds import SOURCES, active_connection_cpu, cpu_that_handled, listen, rss_cpu, run_in, steered
from topologies.namespace import ESTABLISHED_TABLE, inside
from topologies.pair import Pair
from topologies.queue_threads import threads_of
from topologies.tag import leftovers, processes_of
from topologies.testbed import SYSCTLS, Testbed, ipv6_address

pytestmark = pytest.mark.privileged


@pytest.fixture(params=["threads", "rps"])
def nic(testbed, request):
    links = testbed.links_to(testbed.server)
    with ExitStack() as stack:
        threads = stack.enter_context(threads_of(links if request.param == "threads" else []))
        yield stack.enter_context(EmulatedNic(links, threads))


def test_the_link_has_a_queue_per_cpu_at_both_ends(testbed):
    for host in (testbed.client, testbed.server):
        queues = Path(f"/proc/{host.pid}/root/sys/class/net/{host.name}-eth0/queues")
        assert len(list(queues.glob("rx-*"))) == len(list(queues.glob("tx-*"))) == len(ALL_CPUS)


def test_neighbours_are_permanent_and_offloads_off(testbed):
    for host in (testbed.client, testbed.server):
        assert run_in(host, "ip", "neigh").count("PERMANENT") == 2
        offloads = run_in(host, "ethtool", "-k", f"{host.name}-eth0")
        for feature in ("generic-receive-offload", "tcp-segmentation-offload", "generic-segmentation-offload"):
            assert f"{feature}: off" in offloads


@pytest.mark.needs("sysctl")
def test_sysctls_are_set_in_the_namespace_and_unchanged_outside(tag):
    def read():
        return {name: Path("/proc/sys", name).read_text() for name in SYSCTLS}

    before, all_before = read(), run_in_host("sysctl", "-a")
    with Testbed(Pair(), tag, queues=1) as testbed:
        with inside(testbed.server):
            assert {name: value.split() for name, value in read().items()} == {
                name: value.split() for name, value in SYSCTLS.items()
            }
        assert read() == before
    assert changed_settings(all_before, run_in_host("sysctl", "-a")) == []


def run_in_host(*command):
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout


def changed_settings(before, after):
    """Sysctls that differ, without the kernel's own counters and random numbers."""
    counters = (
        "fs.dentry-state",
        "fs.file-nr",
        "fs.inode-",
        "kernel.random",
        "kernel.ns_last_pid",
        "kernel.pty.nr",
        "net.netfilter",
        "kernel.sched_domain",
        "kernel.tainted",
    )
    lines = set(before.splitlines()) ^ set(after.splitlines())
    return sorted(line for line in lines if not line.startswith(counters))


def test_a_server_can_have_a_table_of_established_connections_of_its_own(tag):
    """A negative number is that of a table that is shared."""
    machines = Path("/proc/sys", ESTABLISHED_TABLE)
    before = machines.read_text()
    with Testbed(Pair(), tag, queues=1, table=1024) as made:
        entries = {
            name: int(run_in(host, "sysctl", "-n", "net.ipv4.tcp_ehash_entries")) for name, host in made.hosts.items()
        }
    assert entries["server"] == 1024 and entries["client"] < 0
    assert machines.read_text() == before


def test_the_host_sees_no_interface_of_the_testbed(testbed):
    assert "eth0@" not in run_in_host("ip", "-o", "link", "show", "type", "veth")


def test_all_of_it_goes_with_the_testbed(tag):
    with Testbed(Pair(), tag, queues=1) as testbed:
        shells = [testbed.client.pid, testbed.server.pid]
        assert set(shells) <= set(processes_of(tag.tag))
    assert processes_of(tag.tag) == []
    assert not any(Path(f"/proc/{pid}").exists() for pid in shells)


@NEEDS_TWO_CPUS
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_rss_handles_each_connection_where_its_hash_says(testbed, nic, family):
    with nic.steer(Plan("rss", ALL_CPUS)), listen(testbed, family, 80) as listener:
        expected = {port: rss_cpu(testbed, port, 80, family) for port in SOURCES}
        seen = {port: cpu_that_handled(testbed, listener, port, family) for port in expected}
    assert seen == expected
    assert set(seen.values()) == set(ALL_CPUS)


@NEEDS_TWO_CPUS
def test_rss_over_one_cpu_uses_only_that_one(testbed, nic):
    with nic.steer(Plan("rss", ALL_CPUS[1:2])), listen(testbed, socket.AF_INET, 80) as listener:
        assert {cpu_that_handled(testbed, listener, port) for port in range(21000, 21010)} == {ALL_CPUS[1]}


@NEEDS_TWO_CPUS
@pytest.mark.parametrize("port", [80, 8080])
def test_perfect_filters_steer_answers_by_destination_port(testbed, nic, port):
    """The server plays a proxy's part: it connects, and the client answers. From 8080 on, rule 3 has to find that
    nobody listens in the server's namespace."""
    with inside(testbed.client):
        backend = socket.create_server((testbed.client.IP(), port))
    with nic.steer(Plan("perfect", ALL_CPUS)), backend:
        seen = {port: active_connection_cpu(testbed, backend, port) for port in steered(22000)}
    assert seen == {port: core_of_port(port) for port in seen}
    assert set(seen.values()) == set(ALL_CPUS)


@NEEDS_TWO_CPUS
def test_perfect_filters_leave_ports_of_absent_cpus_to_rss(testbed, nic):
    with inside(testbed.client):
        backend = socket.create_server((testbed.client.IP(), 80))
    with nic.steer(Plan("perfect", ALL_CPUS[1:2])), backend:
        assert {active_connection_cpu(testbed, backend, port) for port in range(22000, 22008)} == {ALL_CPUS[1]}


@NEEDS_TWO_CPUS
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
@pytest.mark.parametrize("port", [80, 8080])
def test_perfect_filters_leave_passive_connections_to_rss(testbed, nic, port, family):
    with nic.steer(Plan("perfect", ALL_CPUS)), listen(testbed, family, port) as listener:
        seen = {source: cpu_that_handled(testbed, listener, source, family) for source in range(23000, 23020)}
    assert seen == {source: rss_cpu(testbed, source, port, family) for source in seen}


@NEEDS_TWO_CPUS
def test_rules_for_ports_give_each_server_its_cpu(testbed, nic):
    rules = {6379: ALL_CPUS[0], 6380: ALL_CPUS[1], 80: ALL_CPUS[1]}
    with nic.steer(Plan("perfect", ALL_CPUS, rules)):
        for port, cpu in rules.items():
            with listen(testbed, socket.AF_INET, port) as listener:
                assert {cpu_that_handled(testbed, listener, source) for source in range(25000, 25010)} == {cpu}


@NEEDS_TWO_CPUS
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_atr_brings_answers_to_the_cpu_that_sent(testbed, nic, family):
    before = os.sched_getaffinity(0)
    server = testbed.client.IP() if family == socket.AF_INET else ipv6_address(testbed.client.intf())
    with ExitStack() as stack:
        stack.callback(os.sched_setaffinity, 0, before)
        stack.enter_context(nic.steer(Plan("atr", ALL_CPUS)))
        with inside(testbed.client):
            backend = stack.enter_context(socket.create_server((server, 80), family=family))
        for port in range(26000, 26016):
            cpu = ALL_CPUS[port % 2]
            os.sched_setaffinity(0, {cpu})
            assert active_connection_cpu(testbed, backend, port, family) == cpu


@NEEDS_TWO_CPUS
@pytest.mark.parametrize("reader_is_local, expected", [(True, 100.0), (False, 0.0)])
def test_the_probe_tells_local_reads_from_remote_ones(testbed, nic, reader_is_local, expected):
    before = os.sched_getaffinity(0)
    with ExitStack() as stack:
        stack.callback(os.sched_setaffinity, 0, before)
        stack.enter_context(nic.steer(Plan("rss", ALL_CPUS[:1])))
        probes = stack.enter_context(Probes())
        assert probes.unavailable == {}
        listener = stack.enter_context(listen(testbed, socket.AF_INET, 80))
        probes.start(testbed.server.pid, range(80, 81), cores=2)
        os.sched_setaffinity(0, {ALL_CPUS[0] if reader_is_local else ALL_CPUS[1]})
        for port in range(24000, 24010):
            read_one_request(testbed, listener, port)
        metrics = probes.metrics(connections=10)
    assert metrics["passive_local_percent"] == expected
    assert metrics["accept_local_percent"] == expected
    assert metrics["busiest_core_over_mean"] == 2  # all on one of the two
    assert metrics["contentions_per_connection"] >= 0


def test_the_probe_counts_the_system_calls_of_the_servers_network_alone(testbed):
    with Probes(count_calls=True) as probes:
        probes.start(testbed.server.pid, range(80, 81), cores=1)
        for host, calls in ((testbed.server, 1000), (testbed.client, 3000)):
            with inside(host):
                for _ in range(calls):
                    os.getppid()
        assert probes.metrics(connections=1000)["calls_per_request"] == pytest.approx(1, abs=0.05)


def read_one_request(testbed, listener, source_port):
    with inside(testbed.client):
        client = socket.create_connection((testbed.server.IP(), 80), source_address=("", source_port))
    with client, listener.accept()[0] as accepted:
        client.sendall(b"request")
        assert accepted.recv(100) == b"request"


def test_a_live_run_is_not_a_leftover(testbed):
    assert leftovers() == []


@pytest.mark.needs("sysctl")
def test_it_loads_in_mininets_own_command_line():
    """In a namespace of its own, because mn raises limits for good wherever it may."""
    script = "unshare --net mn --custom topologies/pair.py --topo pair --controller none --test none"
    before = run_in_host("sysctl", "-a")
    done = subprocess.run(script.split(), capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    assert "(client, server)" in done.stderr
    assert changed_settings(before, run_in_host("sysctl", "-a")) == []
