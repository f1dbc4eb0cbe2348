"""The emulated NIC: its hash against the published vectors, its tables, its rules, and the loaded program
against all of them."""

import ipaddress
import os
import socket
import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastsocket.build import bpf_object
from fastsocket.libbpf import BpfError, BpfObject
from fastsocket.steering import Plan, PlanError, program, rss
from fastsocket.steering.cpus import machine_cpus
from fastsocket.steering.plan import MAX_CPUS
from fastsocket.steering.ports import core_of_port, port_mask
from fastsocket.steering.program import SteeringProgram

# Microsoft, "Verifying the RSS Hash Calculation": source, port, destination, port, hash of addresses, of all four.
VECTORS = [
    ("66.9.149.187", 2794, "161.142.100.80", 1766, 0x323E8FC2, 0x51CCC178),
    ("199.92.111.2", 14230, "65.69.140.83", 4739, 0xD718262A, 0xC626B0EA),
    ("24.19.198.95", 12898, "12.22.207.184", 38024, 0xD2D0A5DE, 0x5C2B394A),
    ("38.27.205.30", 48228, "209.142.163.6", 2217, 0x82989176, 0xAFC7327F),
    ("153.39.163.191", 44251, "202.188.127.2", 1303, 0x5D1809C5, 0x10E828A2),
    ("3ffe:2501:200:1fff::7", 2794, "3ffe:2501:200:3::1", 1766, 0x2CC18CD5, 0x40207D3D),
    ("3ffe:501:8::260:97ff:fe40:efab", 14230, "ff02::1", 4739, 0x0F0C461C, 0xDDE51BBF),
    ("3ffe:1900:4545:3:200:f8ff:fe21:67cf", 44251, "fe80::200:f8ff:fe21:67cf", 38024, 0x4B61E985, 0x02D1FEEF),
]
IPV4, IPV6, ARP, VLAN = 0x0800, 0x86DD, 0x0806, 0x8100
TCP, UDP, ICMP, IPV6_FRAGMENT, SCTP = 6, 17, 1, 44, 132
MORE_FRAGMENTS, DO_NOT_FRAGMENT = 0x2000, 0x4000
PAYLOAD = bytes(range(24))

vectors = pytest.mark.parametrize("source, sport, destination, dport, of_addresses, of_all", VECTORS)


def address_bytes(source: str, destination: str) -> bytes:
    return ipaddress.ip_address(source).packed + ipaddress.ip_address(destination).packed


def port_bytes(sport: int, dport: int) -> bytes:
    return struct.pack("!HH", sport, dport)


def toeplitz_bit_by_bit(data: bytes, key: bytes) -> int:
    """As the specification says it: shift the key left once per bit, add its first 32 bits where the bit is set."""
    result, shifted, key_bits = 0, int.from_bytes(key, "big"), len(key) * 8
    for byte in data:
        for bit in range(7, -1, -1):
            if byte >> bit & 1:
                result ^= shifted >> key_bits - 32
            shifted = shifted << 1 & (1 << key_bits) - 1
    return result


def ethernet(ethertype: int, payload: bytes) -> bytes:
    return bytes.fromhex("020000000002 020000000001") + struct.pack("!H", ethertype) + payload


def ipv4(addresses: bytes, protocol: int, payload: bytes, fragment: int = 0, options: bytes = b"") -> bytes:
    length = 20 + len(options)
    header = struct.pack("!BBHHHBBH", 0x40 | length // 4, 0, length + len(payload), 1, fragment, 64, protocol, 0)
    return ethernet(IPV4, header + addresses + options + payload)


def ipv6(addresses: bytes, next_header: int, payload: bytes) -> bytes:
    return ethernet(IPV6, struct.pack("!IHBB", 6 << 28, len(payload), next_header, 64) + addresses + payload)


def packet(addresses: bytes, protocol: int, payload: bytes) -> bytes:
    return (ipv4 if len(addresses) == 8 else ipv6)(addresses, protocol, payload)


# ---- the tables


@vectors
def test_published_vectors(source, sport, destination, dport, of_addresses, of_all):
    addresses = address_bytes(source, destination)
    for data, expected in [(addresses, of_addresses), (addresses + port_bytes(sport, dport), of_all)]:
        assert toeplitz_bit_by_bit(data, rss.STANDARD_KEY) == expected
        assert rss.toeplitz(data) == expected


@settings(deadline=None, max_examples=25)
@given(data=st.binary(max_size=rss.MAX_INPUT), key=st.binary(min_size=40, max_size=52))
def test_table_is_toeplitz_for_any_key(data, key):
    assert rss.toeplitz(data, key) == toeplitz_bit_by_bit(data, key)


@pytest.mark.parametrize("cpus", [1, 2, 3, 24, 127, 128])
def test_indirection_shares_its_entries_evenly(cpus):
    numbers = list(range(5, 5 + 2 * cpus, 2))
    table = rss.indirection(numbers)
    shares = [table.count(cpu) for cpu in numbers]
    assert len(table) == sum(shares) == 128
    assert max(shares) - min(shares) <= 1


# ---- the slides' function from port to core


@given(cpus=st.integers(1, MAX_CPUS))
def test_every_port_has_a_core_and_every_core_its_share_of_ports(cpus):
    mask = port_mask(cpus)
    assert mask + 1 in {1 << n for n in range(11)}
    assert mask // 2 < cpus <= mask + 1
    ports = [core_of_port(port, cpus) for port in range(32768, 32768 + mask + 1)]
    assert set(ports) == set(range(cpus))
    assert max(map(ports.count, set(ports))) <= 2


@given(port=st.integers(0, 65535), cpus=st.integers(1, MAX_CPUS))
def test_a_port_says_its_core_in_its_low_bits(port, cpus):
    core = core_of_port(port, cpus)
    assert (port - core) & port_mask(cpus) in (0, cpus)


def test_a_port_of_this_machine_has_a_core_that_it_has():
    assert {core_of_port(port) for port in range(2 * MAX_CPUS)} == set(range(machine_cpus()))


# ---- plans


@pytest.mark.parametrize(
    "mode, cpus, ports, named",
    [
        ("arfs", [0], {}, "'arfs': choose from rss, atr, perfect"),
        ("rss", [], {}, "name one or more"),
        ("rss", [1, 0], {}, "in order"),
        ("rss", [0, 0], {}, "each once"),
        ("rss", [-1], {}, "numbered from 0 to 1023"),
        ("perfect", [1024], {}, "numbered"),
        ("rss", [0], {80: 0}, "belong to the mode perfect"),
        ("perfect", [0], {80: 1}, "port 80 to CPU 1"),
        ("perfect", [0], {65536: 0}, "port 65536"),
        ("perfect", [0], {0: 0}, "port 0"),
    ],
)
def test_plans_that_cannot_be_are_refused(mode, cpus, ports, named):
    with pytest.raises(PlanError, match=named):
        Plan(mode, cpus, ports)


def test_settings_are_what_the_program_reads():
    values = struct.unpack("=4IiI128I1024H65536H", program.settings(Plan("perfect", (1, 4, 9), {80: 4}), 7, 24))
    assert values[:6] == (2, 3, 24, 31, 7, 0)
    assert set(values[6:134]) == {1, 4, 9}
    position, rules = values[134 : 134 + 1024], values[134 + 1024 :]
    assert {cpu: place for cpu, place in enumerate(position) if place} == {1: 1, 4: 2, 9: 3}
    assert {port: rule for port, rule in enumerate(rules) if rule} == {80: 5}


# ---- the program


@pytest.fixture(scope="module")
def loaded():
    with SteeringProgram("emulated") as emulated:
        yield emulated


@pytest.mark.privileged
@vectors
def test_program_hashes_the_published_vectors(loaded, source, sport, destination, dport, of_addresses, of_all):
    addresses, payload = address_bytes(source, destination), port_bytes(sport, dport) + PAYLOAD
    assert loaded.test_run("rss_hash", packet(addresses, TCP, payload)) == of_all
    assert loaded.test_run("rss_hash", packet(addresses, UDP, payload)) == of_all
    assert loaded.test_run("rss_hash", packet(addresses, SCTP, payload)) == of_addresses


@pytest.mark.privileged
@settings(deadline=None, max_examples=200)
@given(
    addresses=st.one_of(st.binary(min_size=8, max_size=8), st.binary(min_size=32, max_size=32)),
    ports=st.binary(min_size=4, max_size=4),
    protocol=st.sampled_from([TCP, UDP]),
)
def test_program_hashes_as_python_does(loaded, addresses, ports, protocol):
    assert loaded.test_run("rss_hash", packet(addresses, protocol, ports + PAYLOAD)) == rss.toeplitz(addresses + ports)


SOURCE, SPORT, DESTINATION, DPORT, OF_ADDRESSES, OF_ALL = VECTORS[0]
ADDRESSES, PORTS = address_bytes(SOURCE, DESTINATION), port_bytes(SPORT, DPORT)
ADDRESSES6, OF_ADDRESSES6 = address_bytes(VECTORS[5][0], VECTORS[5][2]), VECTORS[5][4]
FRAMES = {
    "IPv4, not to be fragmented": (ipv4(ADDRESSES, TCP, PORTS + PAYLOAD, DO_NOT_FRAGMENT), OF_ALL),
    "IPv4, options before the ports": (ipv4(ADDRESSES, TCP, PORTS + PAYLOAD, options=b"\x01" * 12), OF_ALL),
    "IPv4, most options": (ipv4(ADDRESSES, UDP, PORTS + PAYLOAD, options=b"\x01" * 40), OF_ALL),
    "IPv4, first fragment": (ipv4(ADDRESSES, TCP, PORTS + PAYLOAD, MORE_FRAGMENTS), OF_ADDRESSES),
    "IPv4, middle fragment": (ipv4(ADDRESSES, UDP, PORTS + PAYLOAD, MORE_FRAGMENTS | 8), OF_ADDRESSES),
    "IPv4, last fragment": (ipv4(ADDRESSES, UDP, PORTS + PAYLOAD, 0x1FFF), OF_ADDRESSES),
    "IPv4, no ports": (ipv4(ADDRESSES, ICMP, PORTS + PAYLOAD), OF_ADDRESSES),
    "IPv4, ports cut off": (ipv4(ADDRESSES, TCP, PORTS[:3]), OF_ADDRESSES),
    "IPv6, fragment": (ipv6(ADDRESSES6, IPV6_FRAGMENT, bytes([TCP]) + bytes(7) + PORTS + PAYLOAD), OF_ADDRESSES6),
    "IPv6, ports cut off": (ipv6(ADDRESSES6, TCP, PORTS[:3]), OF_ADDRESSES6),
    "ARP": (ethernet(ARP, ADDRESSES + PORTS + PAYLOAD), 0),
    "IPv4 in a VLAN tag": (ethernet(VLAN, bytes.fromhex("00010800") + ipv4(ADDRESSES, TCP, PORTS + PAYLOAD)[14:]), 0),
}


@pytest.mark.privileged
@pytest.mark.parametrize("frame, expected", FRAMES.values(), ids=FRAMES)
def test_program_hashes_what_the_frame_has(loaded, frame, expected):
    assert loaded.test_run("rss_hash", frame) == expected


# ---- its choice of CPU, read back from the hash as RPS does


def chosen(loaded, plan, frame, machine=None):
    """The CPU that RPS would choose among the plan's by the hash that the program sets."""
    loaded.set(program.settings(plan, cpus=machine))
    return cpu_now(loaded, plan, frame)


def cpu_now(loaded, plan, frame):
    return plan.cpus[loaded.test_run("rps_hash", frame) * len(plan.cpus) >> 32]


def by_rss(plan, addresses, ports):
    return rss.indirection(plan.cpus)[rss.toeplitz(addresses + ports) % 128]


EITHER_FAMILY = pytest.mark.parametrize("addresses", [ADDRESSES, ADDRESSES6], ids=["IPv4", "IPv6"])
CPU_LISTS = [(0,), (0, 1), (0, 1, 2), (1, 4, 9), tuple(range(24)), tuple(range(0, MAX_CPUS, 2)), tuple(range(MAX_CPUS))]


@pytest.mark.privileged
@EITHER_FAMILY
@pytest.mark.parametrize("cpus", CPU_LISTS, ids=len)
def test_rss_reaches_every_cpu_through_rps(loaded, addresses, cpus):
    plan = Plan("rss", cpus)
    loaded.set(program.settings(plan))
    for port in range(2000, 2200):
        ports = port_bytes(port, 80)
        assert cpu_now(loaded, plan, packet(addresses, TCP, ports + PAYLOAD)) == by_rss(plan, addresses, ports)


@pytest.mark.privileged
@pytest.mark.parametrize("cpus", CPU_LISTS, ids=len)
def test_the_rest_of_the_hash_is_the_flows_own(loaded, cpus):
    """RFS keeps its flows by the low bits of the hash: two flows on one CPU must differ in them."""
    loaded.set(program.settings(Plan("rss", cpus)))
    hashes = [loaded.test_run("rps_hash", packet(ADDRESSES, TCP, port_bytes(port, 80))) for port in range(2000, 2500)]
    assert 0 not in hashes
    assert len({value % 4096 for value in hashes}) > 400


@pytest.mark.privileged
def test_an_idle_program_sets_no_hash(loaded):
    loaded.set(program.IDLE)
    assert loaded.test_run("rps_hash", packet(ADDRESSES, TCP, PORTS + PAYLOAD)) == 0


@pytest.mark.privileged
@pytest.mark.usefixtures("own_network")
@EITHER_FAMILY
@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    machine=st.sampled_from([1, 2, 3, 6, 24, 100, MAX_CPUS]),
    source=st.integers(1, 65535),
    destination=st.integers(1, 65535),
    absent=st.integers(0, 23),
)
def test_perfect_filters_follow_the_classification_rules(loaded, addresses, machine, source, destination, absent):
    plan = Plan("perfect", tuple(cpu for cpu in range(machine) if cpu != absent or machine == 1))
    ports = port_bytes(source, destination)
    active = source < 1024 or destination >= 1024  # nobody listens
    core = core_of_port(destination, machine)
    expected = core if active and core in plan.cpus else by_rss(plan, addresses, ports)
    assert chosen(loaded, plan, packet(addresses, TCP, ports + PAYLOAD), machine) == expected


@pytest.fixture
def listener(own_network):
    """On [::], for both families."""
    with socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True) as listening:
        yield listening


LOOPBACK = pytest.mark.parametrize(
    "addresses", [address_bytes("127.0.0.2", "127.0.0.1"), address_bytes("::2", "::1")], ids=["IPv4", "IPv6"]
)


@pytest.mark.privileged
@LOOPBACK
def test_rule_3_a_listener_makes_a_packet_passive(loaded, listener, addresses):
    plan, port = Plan("perfect", range(8)), listener.getsockname()[1]
    loaded.set(program.settings(plan, cpus=8))
    for source in range(5000, 5050):
        ports = port_bytes(source, port)
        assert cpu_now(loaded, plan, packet(addresses, TCP, ports)) == by_rss(plan, addresses, ports)
    listener.close()
    for source in range(5000, 5050):
        assert cpu_now(loaded, plan, packet(addresses, TCP, port_bytes(source, port))) == core_of_port(port, 8)


@pytest.mark.privileged
@LOOPBACK
def test_rule_3_an_established_connection_is_no_listener(loaded, listener, addresses):
    """The packet is the answer to a connection that is there; only the port's listener may decide."""
    plan = Plan("perfect", range(8))
    loaded.set(program.settings(plan, cpus=8))
    host = "127.0.0.1" if len(addresses) == 8 else "::1"
    with socket.create_connection((host, listener.getsockname()[1])) as active:
        ours, theirs = active.getsockname()[1], listener.getsockname()[1]
        answer = packet(address_bytes(host, host), TCP, port_bytes(theirs, ours))
        assert cpu_now(loaded, plan, answer) == core_of_port(ours, 8)


@pytest.mark.privileged
@EITHER_FAMILY
def test_rules_for_ports_come_first(loaded, addresses):
    plan = Plan("perfect", (1, 4, 9), {80: 4, 6379: 9, 443: 1})
    loaded.set(program.settings(plan, cpus=16))
    for port, cpu in plan.ports.items():
        for source in (22, 1023, 1024, 40000):
            assert cpu_now(loaded, plan, packet(addresses, TCP, port_bytes(source, port))) == cpu


@pytest.mark.privileged
def test_perfect_filters_are_for_tcp_alone(loaded):
    plan = Plan("perfect", range(8), {80: 3})
    for port in range(80, 120):
        ports = port_bytes(53, port)
        assert chosen(loaded, plan, packet(ADDRESSES, UDP, ports), 8) == by_rss(plan, ADDRESSES, ports)


# ---- ATR

ACK, SYN, FIN = 0x10, 0x02, 0x01
BACKWARDS = {ADDRESSES: ADDRESSES[4:] + ADDRESSES[:4], ADDRESSES6: ADDRESSES6[16:] + ADDRESSES6[:16]}


def tcp_sent(addresses, source, destination, flags):
    """A segment of the flow that arrives from source at destination, in the other direction."""
    segment = port_bytes(destination, source) + bytes(8) + bytes([0x50, flags]) + bytes(6)
    return packet(BACKWARDS[addresses], TCP, segment)


def send(loaded, cpu, frames):
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        for frame in frames:
            loaded.test_run("learn", frame)
    finally:
        os.sched_setaffinity(0, before)


def learned(loaded):
    """ATR's table, without its empty entries: {index: (hash, CPU)}."""
    words = struct.unpack(f"={program.LEARNED_ENTRIES}Q", loaded.read(".bss"))
    return {index: (word >> 32, (word & 0xFFFFFFFF) - 1) for index, word in enumerate(words) if word}


@pytest.fixture
def atr(loaded):
    """Over CPUs of which RSS uses only those that this machine has not: what goes to one of ours was learnt."""
    ours = sorted(os.sched_getaffinity(0))
    plan = Plan("atr", (*ours, *range(500, 700)))
    loaded.set(program.settings(plan))
    send(loaded, ours[0], [tcp_sent(ADDRESSES, 1, 1, SYN)])  # the count since the last sample starts at 0
    loaded.set(program.settings(plan))
    return plan


@pytest.mark.privileged
@EITHER_FAMILY
def test_atr_sends_a_flow_to_the_cpu_that_last_sent_on_it(loaded, atr, addresses):
    frame = packet(addresses, TCP, port_bytes(2000, 80) + PAYLOAD)
    miss = by_rss(atr, addresses, port_bytes(2000, 80))
    assert cpu_now(loaded, atr, frame) == miss
    for cpu in sorted(os.sched_getaffinity(0)) * 2:
        send(loaded, cpu, [tcp_sent(addresses, 2000, 80, SYN | ACK)])
        assert cpu_now(loaded, atr, frame) == cpu
    other = port_bytes(2001, 80)
    assert cpu_now(loaded, atr, packet(addresses, TCP, other + PAYLOAD)) == by_rss(atr, addresses, other)


@pytest.mark.privileged
def test_atr_looks_at_every_twentieth_packet_of_a_cpu_and_at_no_fin(loaded, atr):
    cpu = min(os.sched_getaffinity(0))
    sampled = []
    for number in range(1, 61):
        before = learned(loaded)
        send(loaded, cpu, [tcp_sent(ADDRESSES, 3000 + number, 80, ACK)])
        sampled += [number] * (learned(loaded) != before)
    assert sampled == [20, 40, 60]
    send(loaded, cpu, [tcp_sent(ADDRESSES, 4000 + number, 80, ACK | FIN) for number in range(40)])
    assert len(learned(loaded)) == 3


@pytest.mark.privileged
def test_atr_colliding_flows_overwrite_each_other_and_none_takes_the_others_cpu(loaded, atr):
    first = port_bytes(2000, 80)
    slot = rss.toeplitz(ADDRESSES + first) % program.LEARNED_ENTRIES
    second = next(
        port
        for port in range(2001, 65536)
        if rss.toeplitz(ADDRESSES + port_bytes(port, 80)) % program.LEARNED_ENTRIES == slot
    )
    cpu = min(os.sched_getaffinity(0))
    send(loaded, cpu, [tcp_sent(ADDRESSES, 2000, 80, SYN)])
    assert cpu_now(loaded, atr, packet(ADDRESSES, TCP, port_bytes(second, 80))) >= 500
    send(loaded, cpu, [tcp_sent(ADDRESSES, second, 80, SYN)])
    assert cpu_now(loaded, atr, packet(ADDRESSES, TCP, port_bytes(second, 80))) == cpu
    assert cpu_now(loaded, atr, packet(ADDRESSES, TCP, first)) == by_rss(atr, ADDRESSES, first)
    assert set(learned(loaded)) == {slot}


@pytest.mark.privileged
def test_atr_table_is_bounded_and_forgotten_when_the_mode_changes(loaded, atr):
    cpu = min(os.sched_getaffinity(0))
    send(loaded, cpu, [tcp_sent(ADDRESSES, port, 80, SYN) for port in range(1024, 31024)])
    assert len(learned(loaded)) > program.LEARNED_ENTRIES * 0.9
    loaded.set(program.settings(atr))
    assert learned(loaded) == {}


@pytest.mark.privileged
def test_only_atr_learns(loaded):
    for mode in ("rss", "perfect"):
        loaded.set(program.settings(Plan(mode, (0, 1))))
        send(loaded, min(os.sched_getaffinity(0)), [tcp_sent(ADDRESSES, 2000, 80, SYN)])
        assert learned(loaded) == {}


# ---- what libbpf and the verifier refuse


@pytest.mark.privileged
def test_refused_call_comes_without_the_log_of_earlier_ones(loaded):
    with pytest.raises(BpfError, match=r"^cannot run rss_hash: Invalid argument$"):
        loaded.test_run("rss_hash", b"too short")


def test_missing_object_is_named(tmp_path):
    with pytest.raises(BpfError, match=r"nowhere\.bpf\.o"):
        BpfObject(tmp_path / "nowhere.bpf.o")


def test_missing_parts_are_named():
    with BpfObject(bpf_object("emulated")) as unloaded:
        with pytest.raises(BpfError, match=r".rodata has 36864 bytes, not the 36865"):
            unloaded.initial_value(".rodata", 36865)
        with pytest.raises(BpfError, match="find program nowhere"):
            unloaded.attach("nowhere")
        with pytest.raises(BpfError, match="find map nowhere"):
            unloaded.write("nowhere", b"")
