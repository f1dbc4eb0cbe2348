"""Steering on devices of one's own: what each backend does, that its end leaves no trace, and the command nic."""

import json
import os
import re
import select
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from mininet.topo import Topo

from fastsocket.steering import (BACKENDS, Device, DeviceError, EmulatedNic, Plan, PlanError, Refused, choose,
                                 command, core_of_port, ethtool, rfs, steer)
from fastsocket.steering import journal as journal_module
from fastsocket.steering.cpumap import Cpumap
from fastsocket.steering.cpus import cpu_mask, parse_cpus
from fastsocket.steering.ethtool import Ethtool
from fastsocket.steering.journal import FileWritten, Journal
from fastsocket.steering.rfs import SOCKET_TABLE, Rfs
from tests.patience import patient
from tests.test_testbed import (CPUS, NEEDS_TWO_CPUS, SOURCES, active_connection_cpu, cpu_that_handled, listen, rss_cpu,
                                run_in, steered, tag, testbed)
from topologies.namespace import inside
from topologies.testbed import Testbed, device, ipv6_address

__all__ = ["tag", "testbed"]  # fixtures
ROOT = Path(__file__).resolve().parent.parent
EITHER_FAMILY = pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])


@pytest.fixture
def server(testbed):
    return device(testbed.server.intf())


def snapshot(testbed):
    """All that steering may change at both ends."""
    def of(host):
        name = host.intf().name
        shown = [run_in(host, "tc", "qdisc", "show", "dev", name)]
        shown += [run_in(host, "tc", "filter", "show", "dev", name, where) for where in ("ingress", "egress")]
        shown += [re.sub(r"\d+: ", "", run_in(host, "ip", "link", "show", "dev", name))]
        shown += [run_in(host, "ethtool", "-k", name)]
        files = [path.read_text() for kind in ("rps_cpus", "rps_flow_cnt", "xps_cpus")
                 for path in device(host.intf()).queue_files(kind)]
        return shown + files
    return [of(testbed.client), of(testbed.server)]


# ---- plain parts


@pytest.mark.parametrize("text, cpus", [("0", (0,)), ("0-3", (0, 1, 2, 3)), ("8,0-1\n", (0, 1, 8)), ("2,2", (2,))])
def test_cpu_lists(text, cpus):
    assert parse_cpus(text) == cpus


@pytest.mark.parametrize("text", ["", "x", "1-", "-1", "1,,2"])
def test_what_is_no_cpu_list_is_refused(text):
    with pytest.raises(ValueError):
        parse_cpus(text)


def test_a_journal_undoes_in_reverse_order_from_its_file_too(tmp_path):
    setting, kept = tmp_path / "setting", tmp_path / "journal.json"
    setting.write_text("before")
    journal = Journal(kept, mode="rss")
    journal.write(setting, "first")
    journal.write(setting, "second")
    again = Journal.load(kept)
    assert again.about == {"mode": "rss"}
    assert again.steps == [FileWritten(str(setting), "before"), FileWritten(str(setting), "first")]
    again.undo()
    assert setting.read_text() == "before"
    assert not kept.exists()


def test_a_journal_goes_on_undoing_after_a_failure(tmp_path):
    setting, unwritable = tmp_path / "setting", tmp_path / "directory"
    setting.write_text("before")
    unwritable.mkdir()
    journal = Journal()
    journal.write(setting, "after")
    journal.note(FileWritten(str(unwritable), ""))
    with pytest.raises(IsADirectoryError):
        journal.undo()
    assert setting.read_text() == "before"


def test_what_is_no_journal_is_refused(tmp_path):
    steps = '{"about": {}, "steps": [["%s", {}]]}'
    for text in ("", "{}", steps % "Unknown", steps % "FileWritten"):
        (tmp_path / "file").write_text(text)
        with pytest.raises(ValueError):
            Journal.load(tmp_path / "file")


def test_a_device_that_is_not_there_is_named():
    for missing in (Device("nowhere0"), Device("lo", process=2 ** 22 + 1)):
        with pytest.raises(DeviceError, match=missing.name):
            missing.index


@pytest.mark.privileged
@pytest.mark.parametrize("name", [None, *(backend.name for backend in BACKENDS)])
def test_choosing_gives_what_can_or_every_reason(server, name):
    if name in (None, "cpumap"):
        assert choose(server, Plan("perfect", CPUS), name).name == "cpumap"
    else:
        with pytest.raises(Refused, match=f"^{name}: "):
            choose(server, Plan("perfect", CPUS), name)


def test_an_unknown_backend_is_refused():
    with pytest.raises(PlanError, match="'vapour': choose from ethtool, cpumap, rfs"):
        choose(Device("lo"), Plan("rss", [0]), "vapour")


# ---- on, off, and nothing left


@pytest.mark.privileged
@pytest.mark.parametrize("mode", ["rss", "atr", "perfect"])
def test_the_emulated_nic_leaves_no_trace(testbed, mode):
    before = snapshot(testbed)
    with EmulatedNic(testbed.links_to(testbed.server)) as nic:
        attached = snapshot(testbed)
        with nic.steer(Plan(mode, CPUS)):
            assert snapshot(testbed) != attached
        assert snapshot(testbed) == attached != before
    assert snapshot(testbed) == before


@pytest.mark.privileged
@pytest.mark.parametrize("backend, mode", [(Cpumap(), "rss"), (Cpumap(), "atr"), (Cpumap(), "perfect"),
                                           pytest.param(Rfs(), "atr", marks=pytest.mark.needs(f"{SOCKET_TABLE}"))],
                         ids=lambda value: getattr(value, "name", value))
def test_a_backend_leaves_no_trace(testbed, server, backend, mode):
    server.queue_files("rps_cpus")[0].write_text(cpu_mask(CPUS[:1]))
    before = snapshot(testbed)
    with steer(backend, server, Plan(mode, CPUS)):
        assert snapshot(testbed) != before
    assert snapshot(testbed) == before


@pytest.mark.privileged
@pytest.mark.parametrize("entries, meanwhile", [("0", 32768), ("1024", 32768), ("65536", 65536)])
def test_rfs_gives_the_machine_its_socket_table_back(server, tmp_path, monkeypatch, entries, meanwhile):
    """On a file in its place, because the table is everybody's on this machine."""
    table = tmp_path / "rps_sock_flow_entries"
    table.write_text(entries)
    monkeypatch.setattr(rfs, "SOCKET_TABLE", table)
    with steer(Rfs(), server, Plan("atr", CPUS)):
        assert int(table.read_text()) == meanwhile
    assert table.read_text() == entries


@pytest.mark.privileged
def test_an_emulated_nic_at_each_end_of_a_link(testbed):
    before = snapshot(testbed)
    with EmulatedNic(testbed.links_to(testbed.server)) as one, EmulatedNic(testbed.links_to(testbed.client)) as other:
        with one.steer(Plan("atr", CPUS)), other.steer(Plan("atr", CPUS)):
            with listen(testbed, socket.AF_INET, 80) as listener:
                assert cpu_that_handled(testbed, listener, 20000) in CPUS
    assert snapshot(testbed) == before


class Middle(Topo):
    """client — server — far: a proxy's place."""

    def build(self):
        hosts = [self.addHost(name, ip=f"10.0.{number}.1/24") for number, name in enumerate(("client", "far"))]
        server = self.addHost("server", ip="10.0.0.2/24")
        self.addLink(hosts[0], server)
        self.addLink(hosts[1], server, params2={"ip": "10.0.1.2/24"})


@pytest.mark.privileged
@NEEDS_TWO_CPUS
def test_one_emulated_nic_steers_all_links_of_a_host(tag):
    with Testbed(Middle(), tag, queues=2) as testbed, EmulatedNic(testbed.links_to(testbed.server)) as nic:
        receivers = [link.receiver for link in testbed.links_to(testbed.server)]
        assert [receiver.name for receiver in receivers] == ["server-eth0", "server-eth1"]
        with nic.steer(Plan("perfect", CPUS)):
            for host in (testbed.client, testbed.far):
                with inside(host):
                    backend = socket.create_server((host.IP(), 8080))
                with backend:
                    seen = {port: active_connection_cpu(testbed, backend, port) for port in steered(22000)}
                assert seen == {port: core_of_port(port) for port in seen}
        assert not any(path.read_text().strip("0,\n") for receiver in receivers
                       for path in receiver.queue_files("rps_cpus"))


@pytest.mark.privileged
def test_somebody_elses_filter_and_clsact_stay(testbed):
    with EmulatedNic(testbed.links_to(testbed.server)):
        run_in(testbed.client, "tc", "filter", "add", "dev", "client-eth0", "ingress", "protocol", "ip", "u32", "match",
               "u32", "0", "0")
    assert "clsact" in run_in(testbed.client, "tc", "qdisc", "show", "dev", "client-eth0")
    assert "u32" in run_in(testbed.client, "tc", "filter", "show", "dev", "client-eth0", "ingress")
    assert run_in(testbed.client, "tc", "filter", "show", "dev", "client-eth0", "egress") == ""


@pytest.mark.privileged
def test_what_is_half_applied_is_rolled_back(testbed, server):
    """Two emulated NICs cannot stand at one sender's end: the second is refused after the first half."""
    with EmulatedNic(testbed.links_to(testbed.server)), steer(Cpumap(), server, Plan("rss", CPUS)):
        before = snapshot(testbed)
        with pytest.raises(Exception, match="cannot attach to the device's egress") as refused:
            EmulatedNic(testbed.links_to(testbed.server))
        assert refused.value.exit_status == 3
        with pytest.raises(Exception, match="cannot attach the XDP program") as refused:
            with steer(Cpumap(), server, Plan("rss", CPUS)):
                pass
        assert refused.value.exit_status == 3
        assert "XDP program already" in Cpumap().why_not(server)
        assert snapshot(testbed) == before


# ---- cpumap


@pytest.mark.privileged
@NEEDS_TWO_CPUS
@EITHER_FAMILY
@pytest.mark.parametrize("mode", ["rss", "perfect"])
@pytest.mark.parametrize("port", [80, 8080])
def test_cpumap_spreads_passive_connections_as_rss(testbed, server, mode, port, family):
    with steer(Cpumap(), server, Plan(mode, CPUS)), listen(testbed, family, port) as listener:
        seen = {source: cpu_that_handled(testbed, listener, source, family) for source in SOURCES}
    assert seen == {source: rss_cpu(testbed, source, port, family) for source in seen}
    assert set(seen.values()) == set(CPUS)


@pytest.mark.privileged
@NEEDS_TWO_CPUS
@EITHER_FAMILY
@pytest.mark.parametrize("port", [80, 8080])
def test_cpumap_steers_answers_by_destination_port(testbed, server, port, family):
    with backend_at(testbed, family, port) as backend, steer(Cpumap(), server, Plan("perfect", CPUS)):
        seen = {source: active_connection_cpu(testbed, backend, source, family) for source in steered(22000)}
    assert seen == {source: core_of_port(source) for source in seen}


def backend_at(testbed, family, port):
    address = testbed.client.IP() if family == socket.AF_INET else ipv6_address(testbed.client.intf())
    with inside(testbed.client):
        return socket.create_server((address, port), family=family)


@pytest.mark.privileged
@NEEDS_TWO_CPUS
def test_cpumap_gives_each_port_its_cpu(testbed, server):
    rules = {6379: CPUS[0], 6380: CPUS[1]}
    with steer(Cpumap(), server, Plan("perfect", CPUS, rules)):
        for port, cpu in rules.items():
            with listen(testbed, socket.AF_INET, port) as listener:
                assert {cpu_that_handled(testbed, listener, source) for source in range(25000, 25010)} == {cpu}


@pytest.mark.privileged
@NEEDS_TWO_CPUS
@EITHER_FAMILY
def test_cpumap_atr_brings_answers_to_the_cpu_that_sent(testbed, server, family):
    with ExitStack() as stack:
        stack.callback(os.sched_setaffinity, 0, os.sched_getaffinity(0))
        backend = stack.enter_context(backend_at(testbed, family, 80))
        stack.enter_context(steer(Cpumap(), server, Plan("atr", CPUS)))
        for port in range(26000, 26016):
            os.sched_setaffinity(0, {CPUS[port % 2]})
            assert active_connection_cpu(testbed, backend, port, family) == CPUS[port % 2]


# ---- RFS


@pytest.mark.privileged
@NEEDS_TWO_CPUS
@pytest.mark.needs(f"{SOCKET_TABLE}")
def test_rfs_brings_packets_to_the_cpu_that_reads(testbed, server):
    """Over the emulated NIC's RSS, which keeps each flow's own hash: without that all flows would be one to RFS."""
    with ExitStack() as stack:
        stack.callback(os.sched_setaffinity, 0, os.sched_getaffinity(0))
        nic = stack.enter_context(EmulatedNic(testbed.links_to(testbed.server)))
        stack.enter_context(nic.steer(Plan("rss", CPUS)))
        stack.enter_context(steer(Rfs(), server, Plan("atr", CPUS)))
        listener = stack.enter_context(listen(testbed, socket.AF_INET, 80))
        for source in range(27000, 27020):
            os.sched_setaffinity(0, {CPUS[source % 2]})
            assert cpu_after_a_read(testbed, listener, source) == CPUS[source % 2]


def cpu_after_a_read(testbed, listener, source_port):
    with inside(testbed.client):
        client = socket.create_connection((testbed.server.IP(), 80), source_address=("", source_port))
    with client, listener.accept()[0] as accepted:
        for _ in range(3):
            client.sendall(b"x")
            select.select([accepted], [], [], patient(5))
            accepted.recv(1)
        return accepted.getsockopt(socket.SOL_SOCKET, socket.SO_INCOMING_CPU)


def test_rfs_does_nothing_but_follow_the_application():
    assert "cannot do perfect" in Rfs().why_not(mode="perfect")


# ---- ethtool, replayed


class ReplayedNic:
    """ethtool and its driver: says what ethtool 6.1 says, keeps the state, and refuses from the nth rule on."""

    def __init__(self, driver="ixgbe", rings=4, refuses_from=None, refuses=None, rules=0):
        self.driver, self.rings, self.refuses_from, self.refuses = driver, rings, refuses_from, refuses
        self.rules = {2000 + number: "somebody else's" for number in range(rules)}
        self.ntuple, self.indirection, self.commands = "off", [number % rings for number in range(128)], []

    def state(self):
        return dict(self.rules), self.ntuple, list(self.indirection)

    def run(self, argv):
        option, words = argv[1], list(argv[3:])
        self.commands.append(" ".join([option, *words]).strip())
        return {"-i": self._driver, "-k": self._features, "-x": self._table, "-n": self._list, "-K": self._feature,
                "-X": self._spread, "-N": self._rule}[option](words)

    def _driver(self, _):
        return f"driver: {self.driver}\nversion: 6.1.0\nbus-info: 0000:01:00.0\n"

    def _features(self, _):
        return f"Features for eth9:\nrx-checksumming: on\nntuple-filters: {self.ntuple}\nreceive-hashing: on\n"

    def _table(self, _):
        rows = "".join(f"{start:5}:  {''.join(f'{entry:6}' for entry in self.indirection[start:start + 8])}\n"
                       for start in range(0, 128, 8))
        return (f"RX flow hash indirection table for eth9 with {self.rings} RX ring(s):\n{rows}RSS hash key:\n"
                "6d:5a:56:da\nRSS hash function:\n    toeplitz: on\n    xor: off\n    crc32: off\n")

    def _list(self, _):
        return f"{self.rings} RX rings available\nTotal {len(self.rules)} rules\n"

    def _feature(self, words):
        self.ntuple = words[1]
        return ""

    def _spread(self, words):
        first = int(words[1]) if words[0] == "start" else 0
        count = self.rings if words == ["default"] else int(words[-1])
        self.indirection = [first + number % count for number in range(128)]
        return ""

    def _rule(self, words):
        if words[0] == "delete":
            del self.rules[int(words[1])]
            return ""
        if len(self.rules) == self.refuses_from or self.refuses and self.refuses in words:
            raise Refused("ethtool -N eth9: rmgr: Cannot insert RX class rule: Invalid argument")
        location = 2045 - len(self.rules)
        self.rules[location] = " ".join(words)
        return f"Added rule with ID {location}\n"


@pytest.fixture
def eth9(tmp_path, monkeypatch):
    """A NIC with four queues in a sysfs of our own; returns (device, plug(ReplayedNic), files())."""
    sysfs = tmp_path / "sys"
    for queue in range(4):
        (sysfs / f"queues/tx-{queue}").mkdir(parents=True)
        (sysfs / f"queues/tx-{queue}/xps_cpus").write_text("f\n")
        (sysfs / f"device/msi_irqs/{40 + queue}").mkdir(parents=True)
        (tmp_path / f"irq/{40 + queue}").mkdir(parents=True)
        (tmp_path / f"irq/{40 + queue}/smp_affinity_list").write_text("0-3\n")
    (tmp_path / "interrupts").write_text("           CPU0       CPU1\n 39:  7  7  PCI-MSI 1 eth9\n" + "".join(
        f" {40 + queue}:  7  7  PCI-MSI 524288-edge      eth9-TxRx-{queue}\n" for queue in range(4)))

    class Eth9(Device):
        sysfs = tmp_path / "sys"
        index = 9

    monkeypatch.setattr(ethtool, "INTERRUPTS", tmp_path / "interrupts")
    monkeypatch.setattr(ethtool, "IRQ", tmp_path / "irq")
    monkeypatch.setattr(ethtool, "machine_cpus", lambda: 4)
    monkeypatch.setattr(ethtool, "core_of_port", lambda port: core_of_port(port, 4))
    monkeypatch.setattr(journal_module, "Device", Eth9)

    def plug(nic):
        monkeypatch.setattr(command, "run", nic.run)
        return nic

    return Eth9("eth9"), plug, lambda: [path.read_text() for path in sorted(tmp_path.rglob("*")) if path.is_file()]


def test_ethtool_sets_rules_queues_and_indirection_and_puts_them_back(eth9):
    nic, (device_, plug, files) = ReplayedNic(rules=1), eth9
    plug(nic)
    before = nic.state(), files()
    with steer(Ethtool(), device_, Plan("perfect", (1, 3))):
        rules, ntuple, indirection = nic.state()
        assert (ntuple, set(indirection)) == ("on", {0, 1})
        assert [rule for rule in rules.values() if "tcp4" in rule] == [
            "flow-type tcp4 src-port 0 m 0x3ff dst-port 1 m 0xfffc action 0",
            "flow-type tcp4 src-port 0 m 0x3ff dst-port 3 m 0xfffc action 1"]
        assert sum("tcp6" in rule for rule in rules.values()) == 2
        assert (ethtool.IRQ / "41/smp_affinity_list").read_text() == "3"
        assert (device_.sysfs / "queues/tx-1/xps_cpus").read_text() == "00000008"
    assert (nic.state(), files()) == before


@pytest.mark.parametrize("accepted", [0, 1, 2, 3])
def test_ethtool_a_refused_rule_rolls_everything_back_in_reverse_order(eth9, accepted):
    nic, (device_, plug, files) = ReplayedNic(refuses_from=accepted), eth9
    plug(nic)
    before = nic.state(), files()
    with pytest.raises(Refused, match="Cannot insert RX class rule: Invalid argument"):
        with steer(Ethtool(), device_, Plan("perfect", (0, 1, 2, 3))):
            pass
    assert (nic.state(), files()) == before
    deleted = [f"-N delete {2045 - rule}" for rule in reversed(range(accepted))]
    assert nic.commands[-accepted - 2:] == [*deleted, "-K ntuple off", "-X default"]


def test_ethtool_a_driver_with_one_mask_refuses_rules_for_single_ports(eth9):
    nic, (device_, plug, files) = ReplayedNic(refuses="6379"), eth9
    plug(nic)
    before = nic.state(), files()
    with pytest.raises(Refused, match="Invalid argument"):
        with steer(Ethtool(), device_, Plan("perfect", (0, 1), {6379: 1})):
            pass
    assert (nic.state(), files()) == before


def test_ethtool_a_driver_without_rules_for_ipv6_leaves_that_to_rss(eth9):
    nic, (device_, plug, _) = ReplayedNic(refuses="tcp6"), eth9
    plug(nic)
    with steer(Ethtool(), device_, Plan("perfect", (0, 1, 2, 3), {80: 1})):
        assert [rule.split()[1] for rule in nic.rules.values()] == ["tcp4"] * 5
        assert "flow-type tcp4 dst-port 80 action 1" in nic.rules.values()
    assert nic.rules == {}


def test_ethtool_atr_is_ntuple_off_and_takes_nobodys_rules(eth9):
    device_, plug, _ = eth9
    nic = plug(ReplayedNic())
    nic.ntuple = "on"
    with steer(Ethtool(), device_, Plan("atr", (0, 1))):
        assert nic.ntuple == "off"
    assert nic.ntuple == "on"
    nic.rules[2000] = "somebody else's"
    with pytest.raises(Refused, match="eth9 has filter rules"):
        with steer(Ethtool(), device_, Plan("atr", (0, 1))):
            pass
    assert nic.ntuple == "on"


def test_ethtool_puts_back_an_indirection_table_over_some_queues(eth9):
    device_, plug, _ = eth9
    nic = plug(ReplayedNic())
    nic.indirection = [2 + number % 2 for number in range(128)]
    before = list(nic.indirection)
    with steer(Ethtool(), device_, Plan("rss", (0, 1, 2))):
        assert set(nic.indirection) == {0, 1, 2}
    assert nic.indirection == before


def test_ethtool_says_why_not(eth9):
    device_, plug, _ = eth9
    for driver, mode, reason in [("ixgbe", "perfect", None), ("ixgbe", "atr", None), ("mlx5_core", "perfect", None),
                                 ("ice", "perfect", "ice takes no rules with a masked port"),
                                 ("mlx5_core", "atr", "mlx5_core has no ATR")]:
        plug(ReplayedNic(driver))
        answer = Ethtool().why_not(device_, mode)
        assert answer is None if reason is None else reason in answer
    plug(ReplayedNic()).ntuple = "off [fixed]"
    assert "takes no filter rules" in Ethtool().why_not(device_, "perfect")
    plug(ReplayedNic()).indirection = [0, 0, 1, 1] * 32
    assert "ethtool -X cannot write back" in Ethtool().why_not(device_, "rss")
    assert Ethtool().why_not(Device("lo")) == "lo is no hardware: ethtool has no receive queues to steer to"


def test_ethtool_needs_a_queue_for_each_cpu(eth9):
    device_, plug, files = eth9
    plug(ReplayedNic())
    before = files()
    with pytest.raises(Refused, match="4 queues for 5 CPUs"):
        with steer(Ethtool(), device_, Plan("rss", range(5))):
            pass
    assert files() == before


# ---- the command


def nic_command(testbed, *arguments, wrap=()):
    host = testbed.server
    command_line = ["mnexec", "-a", str(host.pid), *wrap, sys.executable, "-m", "fastsocket", "nic", *arguments]
    return subprocess.run(command_line, capture_output=True, text=True, cwd=ROOT)


def shown(testbed):
    return json.loads(nic_command(testbed, "server-eth0", "--json").stdout)


@pytest.mark.privileged
@NEEDS_TWO_CPUS
def test_what_the_command_sets_lasts_until_off(testbed, server):
    server.queue_files("rps_cpus")[1].write_text(cpu_mask(CPUS[1:2]))
    before = snapshot(testbed)
    done = nic_command(testbed, "server-eth0", "perfect", "--port", f"6379={CPUS[1]}")
    assert (done.returncode, done.stderr) == (0, "")
    cpus = ",".join(map(str, CPUS))
    assert done.stdout == f"server-eth0: perfect by cpumap, CPUs {cpus}, port 6379 to CPU {CPUS[1]}\n"
    with listen(testbed, socket.AF_INET, 6379) as listener:
        assert {cpu_that_handled(testbed, listener, source) for source in range(28000, 28010)} == {CPUS[1]}
    assert shown(testbed)["ports"] == {"6379": CPUS[1]}
    assert nic_command(testbed, "server-eth0", "atr").returncode == 0
    assert shown(testbed)["mode"] == "atr"
    off = nic_command(testbed, "server-eth0", "off")
    assert (off.returncode, off.stdout) == (0, "server-eth0: off\n")
    assert snapshot(testbed) == before


@pytest.mark.privileged
def test_what_is_on_stays_where_another_cannot_be(testbed):
    before = snapshot(testbed)
    assert nic_command(testbed, "server-eth0", "perfect", "--port", f"80={CPUS[0]}").returncode == 0
    on = shown(testbed)
    assert nic_command(testbed, "server-eth0", "perfect", "--backend", "ethtool").returncode == 3
    assert shown(testbed) == on
    assert nic_command(testbed, "server-eth0", "off").returncode == 0
    assert snapshot(testbed) == before


KILLED_HALFWAY = """
import os
from fastsocket.steering import Device, Plan, cpumap, lasting
cpumap.Cpumap._attach = lambda *arguments: os._exit(9)
lasting.turn_on(Device("server-eth0"), Plan("atr", {cpus}))
"""


@pytest.mark.privileged
def test_off_undoes_what_a_killed_command_had_done(testbed, server):
    server.queue_files("rps_cpus")[0].write_text(cpu_mask(CPUS[:1]))
    before = snapshot(testbed)
    killed = ["mnexec", "-a", str(testbed.server.pid), sys.executable, "-c", KILLED_HALFWAY.format(cpus=CPUS)]
    assert subprocess.run(killed, cwd=ROOT).returncode == 9
    assert snapshot(testbed) != before
    assert nic_command(testbed, "server-eth0", "off").stdout == "server-eth0: off\n"
    assert snapshot(testbed) == before


@pytest.mark.privileged
def test_off_on_an_untouched_device_says_so(testbed):
    before = snapshot(testbed)
    done = nic_command(testbed, "server-eth0", "off")
    assert (done.returncode, done.stdout, done.stderr) == (
        0, "server-eth0: off\n", "fastsocket: nothing was on at server-eth0\n")
    assert snapshot(testbed) == before


@pytest.mark.privileged
@pytest.mark.parametrize("arguments, status, words", [
    (["nowhere0", "rss"], 2, "there is no network device nowhere0"),
    (["nowhere0", "off"], 2, "there is no network device nowhere0"),
    (["nowhere0"], 2, "there is no network device nowhere0"),
    (["server-eth0", "fast"], 2, "'fast': choose from rss, atr, perfect"),
    (["server-eth0", "rss", "--cpus", "x"], 2, "name CPUs as in 0-3,8"),
    (["server-eth0", "rss", "--cpus", "1000"], 2, "[1000] not online"),
    (["server-eth0", "perfect", "--port", "80"], 2, "write PORT=CPU"),
    (["server-eth0", "perfect", "--port", "80=999"], 2, "not one of the CPUs"),
    (["server-eth0", "perfect", "--port", "0=0"], 2, "port 0"),
    (["server-eth0", "rss", "--port", "80=0"], 2, "belong to the mode perfect"),
    (["server-eth0", "rss", "--backend", "vapour"], 2, "choose from ethtool, cpumap, rfs"),
    (["server-eth0", "perfect", "--backend", "ethtool"], 3, "server-eth0 is no hardware"),
    (["server-eth0", "perfect", "--backend", "rfs"], 3, "cannot do perfect"),
    (["server-eth0", "atr", "--backend", "rfs"], 3, "the machine's first one"),
])
def test_what_cannot_be_is_one_line_and_changes_nothing(testbed, arguments, status, words):
    before = snapshot(testbed)
    done = nic_command(testbed, *arguments)
    assert (done.returncode, done.stdout) == (status, "")
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
    assert snapshot(testbed) == before


@pytest.mark.privileged
@pytest.mark.parametrize("lost", ["net_admin", "bpf,-sys_admin"])
def test_without_capabilities_it_says_which(testbed, lost):
    before = snapshot(testbed)
    done = nic_command(testbed, "server-eth0", "perfect", wrap=["setpriv", f"--bounding-set=-{lost}", "--"])
    assert (done.returncode, done.stdout) == (3, "")
    assert re.fullmatch(r"fastsocket: .*CAP_(NET_ADMIN|BPF).*\n", done.stderr)
    assert snapshot(testbed) == before
