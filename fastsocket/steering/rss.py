"""Receive Side Scaling as NICs do it: the Toeplitz hash, and the indirection table from hash to CPU."""

from collections.abc import Sequence
from functools import cache

# The key in Microsoft's RSS specification, "Verifying the RSS Hash Calculation". Most drivers use it by default.
STANDARD_KEY = bytes.fromhex("6d5a56da255b0ec24167253d43a38fb0d0ca2bcbae7b30b477cb2da38030f20c6a42b73bbeac01fa")

INDIRECTION_ENTRIES = 128
MAX_INPUT = 36


@cache
def contributions(key: bytes = STANDARD_KEY) -> list[list[int]]:
    """The Toeplitz hash as a table of shape 36 × 256.

    Entry [i][b] holds the 32 bits that byte b at input position i adds to the hash by XOR. The hash of an input is the
    XOR of one entry for each byte. Bit n of the input, counted from the highest bit of its first byte, adds the 32 bits
    of the key that start at bit n.
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
