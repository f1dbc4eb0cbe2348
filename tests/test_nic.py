"""The emulated NIC: its hash against the published vectors, its tables, and the loaded program against both."""

import ipaddress
import struct
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastsocket import nic
from fastsocket.build import bpf_object
from fastsocket.libbpf import BpfError, BpfObject

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
        assert toeplitz_bit_by_bit(data, nic.STANDARD_KEY) == expected
        assert nic.toeplitz(data) == expected


@settings(deadline=None, max_examples=25)
@given(data=st.binary(max_size=nic.MAX_INPUT), key=st.binary(min_size=40, max_size=52))
def test_table_is_toeplitz_for_any_key(data, key):
    assert nic.toeplitz(data, key) == toeplitz_bit_by_bit(data, key)


@pytest.mark.parametrize("cpus", [1, 2, 3, 24, 127, 128])
def test_indirection_shares_its_entries_evenly(cpus):
    table = nic.indirection(cpus)
    shares = [table.count(cpu) for cpu in range(cpus)]
    assert len(table) == sum(shares) == 128
    assert max(shares) - min(shares) <= 1


def assert_rps_finds_every_position(cpus):
    for position in range(cpus):
        value = nic.hash_for_position(position, cpus)
        assert 0 < value < 1 << 32
        assert value * cpus >> 32 == position


def test_rps_finds_every_position_of_small_masks():
    for cpus in range(1, 257):
        assert_rps_finds_every_position(cpus)


@given(cpus=st.integers(257, nic.MAX_CPUS))
@settings(deadline=None, max_examples=25)
def test_rps_finds_every_position_of_large_masks(cpus):
    assert_rps_finds_every_position(cpus)


@given(cpus=st.integers(1, nic.MAX_CPUS))
def test_active_mask_is_the_smallest_that_covers_all_cpus(cpus):
    mask = nic.active_mask(cpus)
    assert mask + 1 in {1 << n for n in range(11)}
    assert mask // 2 < cpus <= mask + 1
    assert {port & mask for port in range(32768, 32768 + 2 * nic.MAX_CPUS)} >= set(range(cpus))


@pytest.mark.parametrize("number, mode", [(0, "rss"), (1, "perfect")])
def test_settings_are_what_the_program_reads(number, mode):
    values = struct.unpack("=1155I", nic.settings(mode, 24))
    assert values[:3] == (number, 24, 31)
    assert set(values[3:131]) == set(range(24))
    assert [value * 24 >> 32 for value in values[131:155]] == list(range(24))
    assert set(values[155:]) == {0}


@pytest.mark.parametrize("mode, cpus, named", [
    ("atr", 2, "atr"), ("", 2, "rss, perfect"), ("rss", 0, "0 CPUs"), ("rss", -1, "-1 CPUs"),
    ("perfect", 1025, "1025 CPUs")])
def test_settings_refuse_what_the_nic_cannot_do(mode, cpus, named):
    with pytest.raises(ValueError, match=named):
        nic.settings(mode, cpus)


# ---- the program


@pytest.fixture(scope="module")
def loaded():
    with nic.EmulatedNic() as emulated:
        yield emulated


@pytest.mark.privileged
@vectors
def test_program_hashes_the_published_vectors(loaded, source, sport, destination, dport, of_addresses, of_all):
    addresses, payload = address_bytes(source, destination), port_bytes(sport, dport) + PAYLOAD
    assert loaded.rss_hash(packet(addresses, TCP, payload)) == of_all
    assert loaded.rss_hash(packet(addresses, UDP, payload)) == of_all
    assert loaded.rss_hash(packet(addresses, SCTP, payload)) == of_addresses


@pytest.mark.privileged
@settings(deadline=None, max_examples=200)
@given(addresses=st.one_of(st.binary(min_size=8, max_size=8), st.binary(min_size=32, max_size=32)),
       ports=st.binary(min_size=4, max_size=4), protocol=st.sampled_from([TCP, UDP]))
def test_program_hashes_as_python_does(loaded, addresses, ports, protocol):
    assert loaded.rss_hash(packet(addresses, protocol, ports + PAYLOAD)) == nic.toeplitz(addresses + ports)


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
    assert loaded.rss_hash(frame) == expected


@pytest.mark.privileged
def test_nic_can_be_steered_while_loaded(loaded):
    for mode in nic.MODES:
        for cpus in (1, 2, nic.MAX_CPUS):
            loaded.steer(mode, cpus)


# ---- what libbpf and the verifier refuse

UNBOUNDED = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

SEC("tc")
int unbounded(struct __sk_buff *skb)
{
	char *data = (char *)(long)skb->data;

	return data[skb->mark];
}

char LICENSE[] SEC("license") = "GPL";
"""


@pytest.fixture
def unbounded_object(tmp_path):
    source, compiled = tmp_path / "unbounded.bpf.c", tmp_path / "unbounded.bpf.o"
    source.write_text(UNBOUNDED)
    triplet = subprocess.run(["gcc", "-print-multiarch"], capture_output=True, text=True, check=True).stdout.strip()
    subprocess.run(["clang", "-target", "bpf", "-O2", "-g", f"-I/usr/include/{triplet}", "-c", source, "-o", compiled],
                   check=True)
    return compiled


@pytest.mark.privileged
def test_refused_program_comes_with_the_verifiers_log(unbounded_object):
    with BpfObject(unbounded_object) as refused:
        with pytest.raises(BpfError, match=r"(?s)cannot load.*BEGIN PROG LOAD LOG.*data\[skb->mark\]"):
            refused.load()


@pytest.mark.privileged
def test_refused_call_comes_without_the_log_of_earlier_ones(loaded):
    with pytest.raises(BpfError, match="^cannot run rss_hash: Invalid argument$"):
        loaded.rss_hash(b"too short")


def test_missing_object_is_named(tmp_path):
    with pytest.raises(BpfError, match="nowhere.bpf.o"):
        BpfObject(tmp_path / "nowhere.bpf.o")


def test_missing_parts_are_named():
    with BpfObject(bpf_object("nic")) as unloaded:
        with pytest.raises(BpfError, match=".rodata has 36864 bytes, not the 36865"):
            unloaded.initial_value(".rodata", 36865)
        with pytest.raises(BpfError, match="find program nowhere"):
            unloaded.attach("nowhere")
        with pytest.raises(BpfError, match="find map nowhere"):
            unloaded.write("nowhere", b"")
