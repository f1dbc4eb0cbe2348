"""Receive Side Scaling as NICs do it: the Toeplitz hash, and the table from hash to CPU."""

from collections.abc import Sequence
from functools import cache

# The key of Microsoft's RSS specification, "Verifying the RSS Hash Calculation", and of most drivers' defaults.
STANDARD_KEY = bytes.fromhex("6d5a56da255b0ec24167253d43a38fb0d0ca2bcbae7b30b477cb2da38030f20c6a42b73bbeac01fa")

INDIRECTION_ENTRIES = 128
MAX_INPUT = 36


@cache
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


def indirection(cpus: Sequence[int]) -> list[int]:
    """The indirection table as drivers fill it (ethtool_rxfh_indir_default in include/linux/ethtool.h)."""
    return [cpus[entry % len(cpus)] for entry in range(INDIRECTION_ENTRIES)]
