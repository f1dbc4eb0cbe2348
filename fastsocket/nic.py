"""The emulated NIC: which CPU of a receiver handles a packet, decided at the sender's end of a veth pair.

The mechanism is told in bpf/nic.bpf.c; here are its tables, and the loading.
"""

import struct
from contextlib import AbstractContextManager
from typing import Literal

from fastsocket.build import bpf_object
from fastsocket.libbpf import BpfObject

Mode = Literal["rss", "perfect"]
MODES: tuple[Mode, ...] = ("rss", "perfect")

# The key of Microsoft's RSS specification, "Verifying the RSS Hash Calculation", and of most drivers' defaults.
STANDARD_KEY = bytes.fromhex("6d5a56da255b0ec24167253d43a38fb0d0ca2bcbae7b30b477cb2da38030f20c6a42b73bbeac01fa")

INDIRECTION_ENTRIES = 128
MAX_CPUS = 1024
MAX_INPUT = 36


def contributions(key: bytes = STANDARD_KEY) -> list[list[int]]:
    """Toeplitz as a table: entry [i][b] is the 32-bit XOR that byte b at input position i adds to the hash.

    Shape 36 × 256. The hash of an input is the XOR of one entry per byte: bit n of the input, counted from its first
    byte's highest bit, adds the 32 bits of the key that start at bit n.
    """
    key_bits = int.from_bytes(key, "big")

    def window(bit: int) -> int:
        return key_bits >> (len(key) * 8 - 32 - bit) & 0xFFFFFFFF

    table = []
    for position in range(MAX_INPUT):
        row = [0] * 256
        for bit in range(8):
            added = window(position * 8 + bit)
            for byte in range(256):
                if byte & 0x80 >> bit:
                    row[byte] ^= added
        table.append(row)
    return table


def toeplitz(data: bytes, key: bytes = STANDARD_KEY) -> int:
    """The RSS hash of addresses and ports in network order (at most 36 bytes)."""
    table, result = contributions(key), 0
    for position, byte in enumerate(data):
        result ^= table[position][byte]
    return result


def indirection(cpus: int) -> list[int]:
    """The indirection table as drivers fill it (ethtool_rxfh_indir_default in include/linux/ethtool.h)."""
    return [entry % cpus for entry in range(INDIRECTION_ENTRIES)]


def hash_for_position(position: int, cpus: int) -> int:
    """A hash that RPS maps to this position of its CPU mask: (hash * cpus) >> 32 == position, and never 0,
    which RPS takes for "no hash"."""
    return ((2 * position + 1) << 31) // cpus


def active_mask(cpus: int) -> int:
    """hash(p) = p & (ROUND_UP_POWER_OF_2(n) - 1), the slides' function from port to core."""
    return (1 << (cpus - 1).bit_length()) - 1


def settings(mode: Mode, cpus: int) -> bytes:
    """The program's variables, in their order in nic.bpf.c. Raises ValueError for what the NIC cannot do."""
    if mode not in MODES:
        raise ValueError(f"steering mode {mode!r}: choose from {', '.join(MODES)}")
    if not 1 <= cpus <= MAX_CPUS:
        raise ValueError(f"{cpus} CPUs: the emulated NIC steers to 1 to {MAX_CPUS}")
    hashes = [hash_for_position(position, cpus) for position in range(cpus)]
    return struct.pack(f"=3I{INDIRECTION_ENTRIES}I{MAX_CPUS}I", MODES.index(mode), cpus, active_mask(cpus),
                       *indirection(cpus), *hashes, *[0] * (MAX_CPUS - cpus))


class EmulatedNic(AbstractContextManager):
    """The steering program, loaded. Attach it to senders' devices; steer() changes it while traffic flows.

    Raises BpfError when the kernel refuses, with the verifier's log.
    """

    def __init__(self):
        self._object = BpfObject(bpf_object("nic"))
        try:
            table = b"".join(struct.pack("=256I", *row) for row in contributions())
            self._object.initial_value(".rodata", len(table))[:] = table
            self._object.load()
        except BaseException:
            self._object.close()
            raise

    def attach(self, ifindex: int) -> None:
        """Stand at the egress of a device in the calling thread's network namespace."""
        self._object.attach_egress("nic", ifindex)

    def steer(self, mode: Mode, cpus: int) -> None:
        """From now on: this mode, over this many CPUs of the receiver's RPS mask."""
        self._object.write(".data", settings(mode, cpus))

    def rss_hash(self, packet: bytes) -> int:
        """The hash that the loaded program computes for an Ethernet frame."""
        return self._object.test_run("rss_hash", packet)

    def close(self) -> None:
        self._object.close()

    def __exit__(self, *exception):
        self.close()
