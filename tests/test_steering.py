"""Steering on devices of one's own: what each backend does, that its end leaves no trace, and the command nic."""

import dataclasses
import json
import os
import re
import select
import shutil
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from mininet.topo import Topo

from fastsocket.steering import (
    BACKENDS,
    Device,
    DeviceError,
    EmulatedNic,
    Plan,
    PlanError,
    Refused,
    able,
    backends,
    command,
    core_of_port,
    ethtool,
    interrupts,
    lasting,
    rfs,
    steer,
    steps,
)
from fastsocket.steering.cpumap import Cpumap
from fastsocket.steering.cpus import cpu_mask, parse_cpus
from fastsocket.steering.ethtool import Ethtool
from fastsocket.steering.journal import FORMAT, Journal, JournalError
from fastsocket.steering.rfs import SOCKET_TABLE, Rfs
from fastsocket.steering.steps import DeviceId, QueueFile, Sysctl
from tests.harness.cpus import ALL_CPUS, NEEDS_TWO_CPUS
from tests.harness.patience import patient
from tests.harness.testbeds import SOURCES, active_connection_cpu, cpu_that_handled, listen, rss_cpu, run_in, steered
from topologies.namespace import inside
from topologies.tag import JOURNAL, RunTag
from topologies.testbed import Testbed, device, ipv6_address
from workloads.variants import VARIANTS

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
        files = [
            path.read_text()
            for kind in ("rps_cpus", "rps_flow_cnt", "xps_cpus")
            for path in device(host.intf()).queue_files(kind)
        ]
        return shown + files

    return [of(testbed.client), of(testbed.server)]


# ---- plain parts


NO_CPU_LIST = "name CPUs as in|goes backwards|there is no CPU"


@pytest.mark.parametrize("text, cpus", [("0", (0,)), ("0-3", (0, 1, 2, 3)), ("8,0-1", (0, 1, 8)), ("2,2", (2,))])
def test_cpu_lists(text, cpus):
    assert parse_cpus(text) == cpus


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "1-",
        "-1",
        "1,,2",
        "3-1",
        " 1",
        "1\n",
        "0, 1",
        "1_0",
        "+1",
        "١",
        "1-2-3",
        "0-99999999999999999999",
        "9" * 5000,
    ],
)
def test_what_is_no_cpu_list_is_refused(text):
    with pytest.raises(ValueError, match=NO_CPU_LIST):
        parse_cpus(text)


@pytest.fixture
def proc_sys(tmp_path, monkeypatch):
    """A tree of settings in the place of the machine's own."""
    settings_ = tmp_path / "sys"
    for name in steps.SYSCTLS:
        (settings_ / name).parent.mkdir(parents=True, exist_ok=True)
        (settings_ / name).write_text("7\n")
    monkeypatch.setattr(steps, "PROC_SYS", settings_)
    return settings_


TABLE, DEFER, *_ = steps.SYSCTLS


def test_a_journal_undoes_in_reverse_order_from_its_file_too(tmp_path, proc_sys):
    setting, kept = proc_sys / TABLE, tmp_path / "journal.json"
    journal = Journal(kept, mode="rss")
    journal.write(setting, "8")
    journal.write(setting, "9")
    again = Journal.load(kept)
    assert again.about == {"mode": "rss"}
    assert again.steps == [Sysctl(TABLE, "7"), Sysctl(TABLE, "8")]
    again.undo()
    assert setting.read_text() == "7"
    assert not kept.exists()


def test_a_journal_goes_on_undoing_after_a_failure(proc_sys):
    journal = Journal()
    journal.write(proc_sys / TABLE, "8")
    journal.write(proc_sys / DEFER, "8")
    (proc_sys / DEFER).unlink()
    (proc_sys / DEFER).mkdir()
    with pytest.raises(Refused, match=DEFER):
        journal.undo()
    assert (proc_sys / TABLE).read_text() == "7"


def test_what_is_already_as_before_is_not_written(proc_sys):
    """An interrupt that the kernel manages cannot be moved: neither there nor back (EIO)."""
    journal = Journal()
    journal.write(proc_sys / TABLE, "7")
    (proc_sys / TABLE).write_text(" 7 \n")
    journal.undo()
    assert (proc_sys / TABLE).read_text() == " 7 \n"


def test_only_known_settings_can_be_written(proc_sys):
    (proc_sys / "kernel").mkdir()
    (proc_sys / "kernel/core_pattern").write_text("core")
    with pytest.raises(ValueError, match="core_pattern"):
        Journal().write(proc_sys / "kernel/core_pattern", "|/evil")
    assert (proc_sys / "kernel/core_pattern").read_text() == "core"


def test_the_settings_of_the_lab_are_known():
    assert {name for variant in VARIANTS.values() for name in variant.machine_sysctls} <= set(steps.SYSCTLS)


LO = DeviceId("lo", None, 1, 1)
STEPS = [
    Sysctl(TABLE, "0"),
    QueueFile(LO, "rps_cpus", 0, "00000000,00000003"),
    QueueFile(LO, "rps_flow_cnt", 1, "4096"),
    steps.InterruptMoved(LO, 40, "0-3,8"),
    steps.EgressFilter(LO, 1, 2, True),
    steps.XdpAttached(LO, 3, 2),
    steps.IndirectionSet(LO, 2, 0),
    steps.NtupleSet(LO, "off"),
    steps.RuleAdded(LO, 2045),
]


def kept_of(step) -> dict:
    return {"kind": type(step).__name__, **dataclasses.asdict(step)}


def write_journal(file, kept) -> None:
    file.write_text(kept if isinstance(kept, str) else json.dumps(kept))
    file.chmod(0o600)


def test_a_journal_reads_what_it_wrote(tmp_path):
    journal = Journal(tmp_path / "file")
    for step in STEPS:
        journal.note(step)
    assert Journal.load(tmp_path / "file").steps == STEPS
    assert {type(step).__name__ for step in STEPS} == set(steps.KINDS)


NO_STEP = f"{NO_CPU_LIST}|is no number from|is not as|is none of|its kind is unknown|its fields are not"
OTHER_VALUES = [None, True, -1, 1 << 70, 1.5, "", "\n", "../../x", "-v", "x" * 300, [], {}, ["sh", "-c", "id"]]


@pytest.mark.parametrize("step", STEPS, ids=lambda step: type(step).__name__)
def test_each_field_of_a_step_is_checked(step):
    good = kept_of(step)
    assert steps.step(good) == step
    places = [(good, name) for name in good] + [(good["device"], name) for name in good.get("device", ())]
    for holder, name in places:
        for value in OTHER_VALUES:
            if (name, value) in [("process", None), ("made_hook", True)]:
                continue
            before, holder[name] = holder[name], value
            with pytest.raises(ValueError, match=NO_STEP):
                steps.step(good)
            holder[name] = before
        before = holder.pop(name)
        with pytest.raises(ValueError, match=NO_STEP):
            steps.step(good)
        holder[name] = before
    with pytest.raises(ValueError, match=NO_STEP):
        steps.step(good | {"more": 1})


@pytest.mark.parametrize(
    "text, words",
    [
        ("", "is no journal"),
        ("[]", "is no journal"),
        ("[" * 100_000, "is no journal"),
        ("{}", "is no journal"),
        ('{"about": {}, "steps": []}', "of another version"),
        ('{"about": {}, "steps": [["CommandRun", {"undoing": ["touch", "%s"]}]]}', "of another version"),
        ('{"about": {}, "steps": [["FileWritten", {"path": "%s", "before": "x"}]]}', "of another version"),
        ('{"format": 2, "about": {"file": "%s"}, "steps": []}', "is no journal"),
        ('{"format": 2, "about": {}, "steps": [{"kind": "CommandRun", "undoing": ["touch", "%s"]}]}', "is no journal"),
        (
            '{"format": 2, "about": {}, "steps": [{"kind": "Sysctl", "name": "../..%s", "before": "1"}]}',
            "is no journal",
        ),
    ],
)
def test_what_is_no_journal_of_this_version_is_refused_and_nothing_done(tmp_path, text, words):
    touched = tmp_path / "touched"
    write_journal(tmp_path / "file", text.replace("%s", str(touched)))
    with pytest.raises(JournalError, match=words) as refused:
        Journal.load(tmp_path / "file")
    assert refused.value.exit_status == 3 and str(refused.value).isprintable()
    assert "then remove it" in str(refused.value)
    assert not touched.exists()


@pytest.mark.parametrize("umask", [0, 0o022, 0o777])
def test_a_journal_is_its_owners_alone_whatever_the_umask(tmp_path, umask):
    before = os.umask(umask)
    try:
        Journal(tmp_path / "file").save()
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o7777 == 0o600


@pytest.mark.privileged
def test_a_run_of_the_lab_can_keep_a_journal_whatever_the_umask():
    before = os.umask(0)
    try:
        with RunTag() as run:
            Journal(run.directory / f"machine{JOURNAL}").save()
            assert Journal.load(run.directory / f"machine{JOURNAL}").steps == []
    finally:
        os.umask(before)


def a_link(file):
    write_journal(file.with_name("elsewhere"), {"format": FORMAT, "about": {}, "steps": []})
    file.symlink_to("elsewhere")


def a_writable_file(file):
    write_journal(file, {"format": FORMAT, "about": {}, "steps": []})
    file.chmod(0o622)


def in_a_writable_directory(file):
    write_journal(file, {"format": FORMAT, "about": {}, "steps": []})
    file.parent.chmod(0o777)


def a_file_of_nobody(file):
    write_journal(file, {"format": FORMAT, "about": {}, "steps": []})
    os.chown(file, 65534, 65534)


def in_a_directory_of_nobody(file):
    write_journal(file, {"format": FORMAT, "about": {}, "steps": []})
    os.chown(file.parent, 65534, 65534)


@pytest.mark.privileged
@pytest.mark.parametrize(
    "made",
    [
        a_link,
        a_writable_file,
        in_a_writable_directory,
        a_file_of_nobody,
        in_a_directory_of_nobody,
        os.mkfifo,
        Path.mkdir,
        lambda file: file.symlink_to(file),
    ],
)
def test_what_others_may_have_written_is_not_read(tmp_path, made):
    directory = tmp_path / "state"
    directory.mkdir(mode=0o700)
    made(directory / "file")
    with pytest.raises(Refused, match=r"cannot trust .*remove"):
        Journal.load(directory / "file")


def test_a_device_of_another_namespace_or_number_is_not_touched():
    here = DeviceId.of(Device("lo"))
    assert here.find() == Device("lo")
    for other in (
        {"namespace": here.namespace + 1},
        {"index": here.index + 1},
        {"name": "nowhere0"},
        {"process": (1 << 22) - 1},
    ):
        assert dataclasses.replace(here, **other).find() is None


def test_a_device_that_is_not_there_is_named():
    for missing in (Device("nowhere0"), Device("lo", process=2**22 + 1)):
        with pytest.raises(DeviceError, match=missing.name):
            _ = missing.index


@pytest.mark.privileged
@pytest.mark.parametrize("name", [None, *(backend.name for backend in BACKENDS)])
def test_choosing_gives_what_can_or_every_reason(server, name):
    if name in (None, "cpumap"):
        assert [backend.name for backend in able(server, Plan("perfect", ALL_CPUS), name)] == ["cpumap"]
    else:
        with pytest.raises(Refused, match=f"^{name}: "):
            able(server, Plan("perfect", ALL_CPUS), name)


def test_an_unknown_backend_is_refused():
    with pytest.raises(PlanError, match="'vapour': choose from ethtool, cpumap, rfs"):
        able(Device("lo"), Plan("rss", [0]), "vapour")


# ---- on, off, and nothing left


@pytest.mark.privileged
@pytest.mark.parametrize("mode", ["rss", "atr", "perfect"])
def test_the_emulated_nic_leaves_no_trace(testbed, mode):
    before = snapshot(testbed)
    with EmulatedNic(testbed.links_to(testbed.server)) as nic:
        attached = snapshot(testbed)
        with nic.steer(Plan(mode, ALL_CPUS)):
            assert snapshot(testbed) != attached
        assert snapshot(testbed) == attached != before
    assert snapshot(testbed) == before


@pytest.mark.privileged
@pytest.mark.parametrize(
    "backend, mode",
    [
        (Cpumap(), "rss"),
        (Cpumap(), "atr"),
        (Cpumap(), "perfect"),
        pytest.param(Rfs(), "atr", marks=pytest.mark.needs(f"{SOCKET_TABLE}")),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_a_backend_leaves_no_trace(testbed, server, backend, mode):
    server.queue_files("rps_cpus")[0].write_text(cpu_mask(ALL_CPUS[:1]))
    before = snapshot(testbed)
    with steer(backend, server, Plan(mode, ALL_CPUS)):
        assert snapshot(testbed) != before
    assert snapshot(testbed) == before


@pytest.mark.privileged
@pytest.mark.parametrize("entries, meanwhile", [("0", 32768), ("1024", 32768), ("65536", 65536)])
def test_rfs_gives_the_machine_its_socket_table_back(server, proc_sys, monkeypatch, entries, meanwhile):
    """On a file in its place, because the table is everybody's on this machine."""
    table = proc_sys / TABLE
    table.write_text(entries)
    monkeypatch.setattr(rfs, "SOCKET_TABLE", table)
    with steer(Rfs(), server, Plan("atr", ALL_CPUS)):
        assert int(table.read_text()) == meanwhile
    assert table.read_text() == entries


@pytest.mark.privileged
def test_an_emulated_nic_at_each_end_of_a_link(testbed):
    before = snapshot(testbed)
    with (
        EmulatedNic(testbed.links_to(testbed.server)) as one,
        EmulatedNic(testbed.links_to(testbed.client)) as other,
        one.steer(Plan("atr", ALL_CPUS)),
        other.steer(Plan("atr", ALL_CPUS)),
        listen(testbed, socket.AF_INET, 80) as listener,
    ):
        assert cpu_that_handled(testbed, listener, 20000) in ALL_CPUS
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
        with nic.steer(Plan("perfect", ALL_CPUS)):
            for host in (testbed.client, testbed.far):
                with inside(host):
                    backend = socket.create_server((host.IP(), 8080))
                with backend:
                    seen = {port: active_connection_cpu(testbed, backend, port) for port in steered(22000)}
                assert seen == {port: core_of_port(port) for port in seen}
        assert not any(
            path.read_text().strip("0,\n") for receiver in receivers for path in receiver.queue_files("rps_cpus")
        )


@pytest.mark.privileged
def test_somebody_elses_filter_and_clsact_stay(testbed):
    with EmulatedNic(testbed.links_to(testbed.server)):
        run_in(
            testbed.client,
            "tc",
            "filter",
            "add",
            "dev",
            "client-eth0",
            "ingress",
            "protocol",
            "ip",
            "u32",
            "match",
            "u32",
            "0",
            "0",
        )
    assert "clsact" in run_in(testbed.client, "tc", "qdisc", "show", "dev", "client-eth0")
    assert "u32" in run_in(testbed.client, "tc", "filter", "show", "dev", "client-eth0", "ingress")
    assert run_in(testbed.client, "tc", "filter", "show", "dev", "client-eth0", "egress") == ""


@pytest.mark.privileged
def test_what_is_half_applied_is_rolled_back(testbed, server):
    """Two emulated NICs cannot stand at one sender's end: the second is refused after the first half."""
    with EmulatedNic(testbed.links_to(testbed.server)), steer(Cpumap(), server, Plan("rss", ALL_CPUS)):
        before = snapshot(testbed)
        with pytest.raises(Exception, match="cannot attach to the device's egress") as refused:
            EmulatedNic(testbed.links_to(testbed.server))
        assert refused.value.exit_status == 3
        with (
            pytest.raises(Exception, match="cannot attach the XDP program") as refused,
            steer(Cpumap(), server, Plan("rss", ALL_CPUS)),
        ):
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
    with steer(Cpumap(), server, Plan(mode, ALL_CPUS)), listen(testbed, family, port) as listener:
        seen = {source: cpu_that_handled(testbed, listener, source, family) for source in SOURCES}
    assert seen == {source: rss_cpu(testbed, source, port, family) for source in seen}
    assert set(seen.values()) == set(ALL_CPUS)


@pytest.mark.privileged
@NEEDS_TWO_CPUS
@EITHER_FAMILY
@pytest.mark.parametrize("port", [80, 8080])
def test_cpumap_steers_answers_by_destination_port(testbed, server, port, family):
    with backend_at(testbed, family, port) as backend, steer(Cpumap(), server, Plan("perfect", ALL_CPUS)):
        seen = {source: active_connection_cpu(testbed, backend, source, family) for source in steered(22000)}
    assert seen == {source: core_of_port(source) for source in seen}


def backend_at(testbed, family, port):
    address = testbed.client.IP() if family == socket.AF_INET else ipv6_address(testbed.client.intf())
    with inside(testbed.client):
        return socket.create_server((address, port), family=family)


@pytest.mark.privileged
@NEEDS_TWO_CPUS
def test_cpumap_gives_each_port_its_cpu(testbed, server):
    rules = {6379: ALL_CPUS[0], 6380: ALL_CPUS[1]}
    with steer(Cpumap(), server, Plan("perfect", ALL_CPUS, rules)):
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
        stack.enter_context(steer(Cpumap(), server, Plan("atr", ALL_CPUS)))
        for port in range(26000, 26016):
            os.sched_setaffinity(0, {ALL_CPUS[port % 2]})
            assert active_connection_cpu(testbed, backend, port, family) == ALL_CPUS[port % 2]


# ---- RFS


@pytest.mark.privileged
@NEEDS_TWO_CPUS
@pytest.mark.needs(f"{SOCKET_TABLE}")
def test_rfs_brings_packets_to_the_cpu_that_reads(testbed, server):
    """Over the emulated NIC's RSS, which keeps each flow's own hash: without that all flows would be one to RFS."""
    with ExitStack() as stack:
        stack.callback(os.sched_setaffinity, 0, os.sched_getaffinity(0))
        nic = stack.enter_context(EmulatedNic(testbed.links_to(testbed.server)))
        stack.enter_context(nic.steer(Plan("rss", ALL_CPUS)))
        stack.enter_context(steer(Rfs(), server, Plan("atr", ALL_CPUS)))
        listener = stack.enter_context(listen(testbed, socket.AF_INET, 80))
        for source in range(27000, 27020):
            os.sched_setaffinity(0, {ALL_CPUS[source % 2]})
            assert cpu_after_a_read(testbed, listener, source) == ALL_CPUS[source % 2]


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
        return {
            "-i": self._driver,
            "-k": self._features,
            "-x": self._table,
            "-n": self._list,
            "-K": self._feature,
            "-X": self._spread,
            "-N": self._rule,
        }[option](words)

    def _driver(self, _):
        return f"driver: {self.driver}\nversion: 6.1.0\nbus-info: 0000:01:00.0\n"

    def _features(self, _):
        return f"Features for eth9:\nrx-checksumming: on\nntuple-filters: {self.ntuple}\nreceive-hashing: on\n"

    def _table(self, _):
        rows = "".join(
            f"{start:5}:  {''.join(f'{entry:6}' for entry in self.indirection[start : start + 8])}\n"
            for start in range(0, 128, 8)
        )
        return (
            f"RX flow hash indirection table for eth9 with {self.rings} RX ring(s):\n{rows}RSS hash key:\n"
            "6d:5a:56:da\nRSS hash function:\n    toeplitz: on\n    xor: off\n    crc32: off\n"
        )

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
        if len(self.rules) == self.refuses_from or (self.refuses and self.refuses in words):
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
    (tmp_path / "interrupts").write_text(
        "           CPU0       CPU1\n 39:  7  7  PCI-MSI 1 eth9\n"
        + "".join(f" {40 + queue}:  7  7  PCI-MSI 524288-edge      eth9-TxRx-{queue}\n" for queue in range(4))
    )

    class Eth9(Device):
        sysfs = tmp_path / "sys"
        index = 9

    monkeypatch.setattr(interrupts, "INTERRUPTS", tmp_path / "interrupts")
    monkeypatch.setattr(interrupts, "IRQ", tmp_path / "irq")
    monkeypatch.setattr(ethtool, "machine_cpus", lambda: 4)
    monkeypatch.setattr(ethtool, "core_of_port", lambda port: core_of_port(port, 4))
    monkeypatch.setattr(steps, "Device", Eth9)

    def plug(nic):
        monkeypatch.setattr(command, "run", nic.run)
        return nic

    def files():
        return [path.read_text().strip() for path in sorted(tmp_path.rglob("*")) if path.is_file()]

    return Eth9("eth9"), plug, files


def test_ethtool_sets_rules_queues_and_indirection_and_puts_them_back(eth9):
    nic, (device_, plug, files) = ReplayedNic(rules=1), eth9
    plug(nic)
    before = nic.state(), files()
    with steer(Ethtool(), device_, Plan("perfect", (1, 3))):
        rules, ntuple, indirection = nic.state()
        assert (ntuple, set(indirection)) == ("on", {0, 1})
        assert [rule for rule in rules.values() if "tcp4" in rule] == [
            "flow-type tcp4 src-port 0 m 0x3ff dst-port 1 m 0xfffc action 0",
            "flow-type tcp4 src-port 0 m 0x3ff dst-port 3 m 0xfffc action 1",
        ]
        assert sum("tcp6" in rule for rule in rules.values()) == 2
        assert (interrupts.IRQ / "41/smp_affinity_list").read_text() == "3"
        assert (device_.sysfs / "queues/tx-1/xps_cpus").read_text() == "00000008"
    assert (nic.state(), files()) == before


@pytest.mark.parametrize("accepted", [0, 1, 2, 3])
def test_ethtool_a_refused_rule_rolls_everything_back_in_reverse_order(eth9, accepted):
    nic, (device_, plug, files) = ReplayedNic(refuses_from=accepted), eth9
    plug(nic)
    before = nic.state(), files()
    with (
        pytest.raises(Refused, match="Cannot insert RX class rule: Invalid argument"),
        steer(Ethtool(), device_, Plan("perfect", (0, 1, 2, 3))),
    ):
        pass
    assert (nic.state(), files()) == before
    deleted = [f"-N delete {2045 - rule}" for rule in reversed(range(accepted))]
    assert nic.commands[-accepted - 2 :] == [*deleted, "-K ntuple off", "-X default"]


def test_ethtool_a_driver_with_one_mask_refuses_rules_for_single_ports(eth9):
    nic, (device_, plug, files) = ReplayedNic(refuses="6379"), eth9
    plug(nic)
    before = nic.state(), files()
    with (
        pytest.raises(Refused, match="Invalid argument"),
        steer(Ethtool(), device_, Plan("perfect", (0, 1), {6379: 1})),
    ):
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
    with pytest.raises(Refused, match="eth9 has filter rules"), steer(Ethtool(), device_, Plan("atr", (0, 1))):
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
    for driver, mode, reason in [
        ("ixgbe", "perfect", None),
        ("ixgbe", "atr", None),
        ("mlx5_core", "perfect", None),
        ("ice", "perfect", "ice takes no rules with a masked port"),
        ("mlx5_core", "atr", "mlx5_core has no ATR"),
    ]:
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
    with pytest.raises(Refused, match="4 queues for 5 CPUs"), steer(Ethtool(), device_, Plan("rss", range(5))):
        pass
    assert files() == before


@pytest.fixture
def virtio(eth9, tmp_path):
    """The same as virtio_net with rss=on has it on Linux 6.12: its interrupts are the PCI function's that the virtio
    device belongs to, and each queue has one for each direction. Returns as eth9."""
    device_, plug, files = eth9
    pci = tmp_path / "pci0000:00/0000:00:03.0"
    (pci / "virtio2").mkdir(parents=True)
    shutil.rmtree(device_.sysfs / "device")
    (device_.sysfs / "device").symlink_to(pci / "virtio2")
    for number in range(50, 59):
        (pci / f"msi_irqs/{number}").mkdir(parents=True)
        (tmp_path / f"irq/{number}").mkdir()
        (tmp_path / f"irq/{number}/smp_affinity_list").write_text("0-3\n")
    (tmp_path / "interrupts").write_text(
        "           CPU0       CPU1\n 50:  0  0 PCI-MSIX-0000:00:03.0   0-edge      virtio2-config\n"
        + "".join(
            f" {51 + 2 * queue}:  9  0 PCI-MSIX-0000:00:03.0   {1 + 2 * queue}-edge      virtio2-input.{queue}\n"
            f" {52 + 2 * queue}:  9  0 PCI-MSIX-0000:00:03.0   {2 + 2 * queue}-edge      virtio2-output.{queue}\n"
            for queue in range(4)
        )
    )
    plug(ReplayedNic("virtio_net", 4)).ntuple = "off [fixed]"
    return device_, plug, files


def test_a_nic_without_rules_does_rss_itself_and_nothing_else(virtio):
    device_, _, _ = virtio
    assert Ethtool().why_not(device_, "rss") is None
    assert "virtio_net has no ATR" in Ethtool().why_not(device_, "atr")
    assert "virtio_net takes no filter rules (ntuple-filters: off [fixed])" in Ethtool().why_not(device_, "perfect")


def test_virtio_nets_own_table_and_interrupts_are_set_and_put_back(virtio):
    device_, plug, files = virtio
    nic = plug(ReplayedNic("virtio_net", 4))
    nic.ntuple = "off [fixed]"
    before = nic.state(), files()
    with steer(Ethtool(), device_, Plan("rss", (1, 3))):
        assert nic.indirection == [0, 1] * 64
        assert [(interrupts.IRQ / f"{number}/smp_affinity_list").read_text().strip() for number in range(50, 56)] == [
            "0-3",
            "1",
            "0-3",
            "3",
            "0-3",
            "0-3",
        ]
        assert (device_.sysfs / "queues/tx-1/xps_cpus").read_text() == "00000008"
    assert (nic.state(), files()) == before
    assert not [command_ for command_ in nic.commands if command_.startswith(("-N", "-K"))]


class _Stub:
    """A backend that could, and says so of every plan it is given."""

    modes = ("rss",)

    def __init__(self, name, refuses=False):
        self.name, self.refuses, self.plans = name, refuses, []

    def why_not(self, device, mode):
        return None

    def apply(self, device, plan, journal):
        self.plans.append(plan)
        journal.write(steps.PROC_SYS / TABLE, self.name[-1])
        if self.refuses:
            raise Refused("4 queues for 8 CPUs")


@pytest.mark.privileged
def test_where_the_nic_refuses_halfway_the_next_way_is_taken(state, proc_sys, monkeypatch):
    """Such as for want of queues. A backend that was named is taken at its word."""
    nic, other = _Stub("nic1", refuses=True), _Stub("other2")
    for module in (backends, lasting):
        monkeypatch.setattr(module, "BACKENDS", (nic, other))
    lasting.turn_on(Device("lo"), Plan("rss", (0, 1)))
    assert (lasting.described(Device("lo"))["backend"], (proc_sys / TABLE).read_text()) == ("other2", "2")
    with pytest.raises(Refused, match="4 queues for 8 CPUs"):
        lasting.turn_on(Device("lo"), Plan("rss", (0,)), "nic1")
    assert lasting.described(Device("lo"))["backend"] == "other2"
    assert [plan.cpus for plan in other.plans] == [(0, 1), (0, 1)]
    assert lasting.turn_off(Device("lo"))
    assert (proc_sys / TABLE).read_text() == "7"


# ---- the command


def nic_command(testbed, *arguments, wrap=()):
    host = testbed.server
    command_line = ["mnexec", "-a", str(host.pid), *wrap, sys.executable, "-m", "fastsocket", "nic", *arguments]
    return subprocess.run(command_line, capture_output=True, text=True, cwd=ROOT)


def shown(testbed):
    return json.loads(nic_command(testbed, "server-eth0", "--json").stdout)


@pytest.fixture
def state(tmp_path, monkeypatch):
    """Where journals are, in a place of our own."""
    monkeypatch.setattr(lasting, "STATE", tmp_path / "fastsocket" / "nic")
    return lasting.STATE


@pytest.mark.privileged
@pytest.mark.parametrize("umask", [0, 0o777])
def test_what_the_command_keeps_is_roots_alone_whatever_the_umask(state, umask):
    """Also where an older version has made it for all to read."""
    for _already in (False, True):
        before = os.umask(umask)
        try:
            with lasting._locked():
                Journal(state / "1-1.json").save()
        finally:
            os.umask(before)
        assert {path.name: path.stat().st_mode & 0o7777 for path in (state.parent, *state.parent.rglob("*"))} == {
            "fastsocket": 0o700,
            "nic": 0o700,
            "lock": 0o600,
            "1-1.json": 0o600,
        }
        for path in (state.parent, state):
            path.chmod(0o755)
        (state / "lock").chmod(0o644)


@pytest.mark.privileged
@pytest.mark.parametrize("place", [".", "..", "lock"])
@pytest.mark.parametrize("spoilt", ["of nobody", "for all", "a link", "a FIFO"])
def test_a_place_that_is_not_roots_alone_is_refused_in_one_line(state, place, spoilt):
    with lasting._locked():
        pass
    target = Path(os.path.normpath(state / place))
    if spoilt == "of nobody":
        os.chown(target, 65534, 65534)
    elif spoilt == "for all":
        target.chmod(0o777)
    else:
        target.rename(target.with_name("elsewhere"))
        target.symlink_to("elsewhere") if spoilt == "a link" else os.mkfifo(target)
    with pytest.raises(Refused, match=f"cannot trust {target}: .*remove") as refused, lasting._locked():
        pass
    assert str(refused.value).isprintable()


@pytest.mark.privileged
def test_nobody_cannot_open_the_lock_and_who_holds_it_is_named(state, monkeypatch):
    monkeypatch.setattr(lasting, "LOCK_SECONDS", 0.2)
    with lasting._locked():
        assert not may_open(state / "lock")
        child = os.fork()
        if not child:
            os._exit(waits_in_vain(os.getppid()))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def may_open(path) -> bool:
    opens = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "cat", path]
    return subprocess.run(opens, capture_output=True).returncode == 0


def waits_in_vain(holder: int) -> int:
    try:
        with lasting._locked():
            return 1
    except Refused as refusal:
        return 0 if f"process {holder} holds" in str(refusal) and "0.2 s" in str(refusal) else 2


ABOUT = {"device": "lo", "address": "00:00:00:00:00:00", "backend": "cpumap", "mode": "rss", "cpus": [0], "ports": {}}


@pytest.mark.privileged
@pytest.mark.parametrize(
    "name, value",
    [
        ("device", "-v"),
        ("device", None),
        ("address", "x\n"),
        ("address", 1),
        ("backend", "vapour"),
        ("backend", ["cpumap"]),
        ("mode", "fast"),
        ("mode", None),
        ("cpus", None),
        ("cpus", [-1]),
        ("cpus", ["0"]),
        ("cpus", [1 << 40]),
        ("cpus", []),
        ("ports", []),
        ("ports", {"80": 0}),
        ("ports", {"x": 0}),
        ("more", 1),
    ],
)
def test_the_head_of_a_journal_is_checked(state, name, value):
    with lasting._locked():
        write_journal(lasting._file(Device("lo")), {"format": FORMAT, "about": ABOUT, "steps": []})
        assert lasting.described(Device("lo"))["mode"] == "rss"
        write_journal(lasting._file(Device("lo")), {"format": FORMAT, "about": ABOUT | {name: value}, "steps": []})
    for act in (lasting.described, lasting.turn_off, lambda device: lasting.turn_on(device, Plan("rss", ALL_CPUS))):
        with pytest.raises(JournalError, match="then remove it") as refused:
            act(Device("lo"))
        assert str(refused.value).isprintable()


@pytest.mark.privileged
@NEEDS_TWO_CPUS
def test_what_the_command_sets_lasts_until_off(testbed, server):
    server.queue_files("rps_cpus")[1].write_text(cpu_mask(ALL_CPUS[1:2]))
    before = snapshot(testbed)
    done = nic_command(testbed, "server-eth0", "perfect", "--port", f"6379={ALL_CPUS[1]}")
    assert (done.returncode, done.stderr) == (0, "")
    cpus = ",".join(map(str, ALL_CPUS))
    assert done.stdout == f"server-eth0: perfect by cpumap, CPUs {cpus}, port 6379 to CPU {ALL_CPUS[1]}\n"
    with listen(testbed, socket.AF_INET, 6379) as listener:
        assert {cpu_that_handled(testbed, listener, source) for source in range(28000, 28010)} == {ALL_CPUS[1]}
    assert shown(testbed)["ports"] == {"6379": ALL_CPUS[1]}
    assert nic_command(testbed, "server-eth0", "atr").returncode == 0
    assert shown(testbed)["mode"] == "atr"
    off = nic_command(testbed, "server-eth0", "off")
    assert (off.returncode, off.stdout) == (0, "server-eth0: off\n")
    assert snapshot(testbed) == before


@pytest.mark.privileged
def test_what_is_on_stays_where_another_cannot_be(testbed):
    before = snapshot(testbed)
    assert nic_command(testbed, "server-eth0", "perfect", "--port", f"80={ALL_CPUS[0]}").returncode == 0
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
    server.queue_files("rps_cpus")[0].write_text(cpu_mask(ALL_CPUS[:1]))
    before = snapshot(testbed)
    killed = ["mnexec", "-a", str(testbed.server.pid), sys.executable, "-c", KILLED_HALFWAY.format(cpus=ALL_CPUS)]
    assert subprocess.run(killed, cwd=ROOT).returncode == 9
    assert snapshot(testbed) != before
    assert nic_command(testbed, "server-eth0", "off").stdout == "server-eth0: off\n"
    assert snapshot(testbed) == before


@pytest.mark.privileged
def test_off_on_an_untouched_device_says_so(testbed):
    before = snapshot(testbed)
    done = nic_command(testbed, "server-eth0", "off")
    assert (done.returncode, done.stdout, done.stderr) == (
        0,
        "server-eth0: off\n",
        "fastsocket: nothing was on at server-eth0\n",
    )
    assert snapshot(testbed) == before


@pytest.mark.privileged
@pytest.mark.parametrize(
    "arguments, status, words",
    [
        (["nowhere0", "rss"], 2, "there is no network device nowhere0"),
        (["nowhere0", "off"], 2, "there is no network device nowhere0"),
        (["nowhere0"], 2, "there is no network device nowhere0"),
        (["server-eth0", "fast"], 2, "'fast': choose from rss, atr, perfect"),
        (["server-eth0", "rss", "--cpus", "x"], 2, "name CPUs as in 0-3,8"),
        (["server-eth0", "rss", "--cpus", "0-999999999"], 2, "there is no CPU 999999999"),
        (["server-eth0", "rss", "--cpus", ""], 2, "name CPUs as in 0-3,8"),
        (["server-eth0", "rss", "--cpus", "1-0"], 2, "goes backwards: 0-1"),
        (["server-eth0", "perfect", "--port", "80"], 2, "write PORT=CPU"),
        (["server-eth0", "perfect", "--port", "80=8191"], 2, "there is no CPU 8191"),
        (
            ["server-eth0", "perfect", "--port", f"80={ALL_CPUS[-1]}", "--cpus", f"{ALL_CPUS[0]}"],
            2,
            "not one of the CPUs",
        ),
        (["server-eth0", "perfect", "--port", "80=0", "--port", "80=0"], 2, "name each port once"),
        (["server-eth0", "perfect", "--port", "0=0"], 2, "port 0"),
        (["server-eth0", "rss", "--port", "80=0"], 2, "belong to the mode perfect"),
        (["server-eth0", "rss", "--backend", "vapour"], 2, "choose from ethtool, cpumap, rfs"),
        (["server-eth0", "perfect", "--backend", "ethtool"], 3, "server-eth0 is no hardware"),
        (["server-eth0", "perfect", "--backend", "rfs"], 3, "cannot do perfect"),
        (["server-eth0", "atr", "--backend", "rfs"], 3, "the machine's first one"),
    ],
)
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
