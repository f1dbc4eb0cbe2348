"""What libfsocket.so did in a running server, read from outside.

The library keeps its counters in a memfd mapped by the server's whole process tree; any of its processes leads there
through /proc/PID/maps and /proc/PID/mem (proc(5)). The layout is fsocket_counters in libfsocket/fsocket.h.
"""

import struct
from dataclasses import dataclass
from pathlib import Path

MAPPING = "/memfd:fsocket"
VERSION = 2
_HEADER = struct.Struct("=8sIIII")
_CPU = struct.Struct("=7Q8x")


@dataclass(frozen=True)
class CpuCounters:
    """Totals of one CPU since the server started."""

    cpu: int
    accepted_local: int
    accepted_global: int
    accepted_neighbour: int
    adopted: int
    fallen_back: int
    deferred: int
    registered: int


class NotPreloaded(Exception):
    """The process has no libfsocket counters: the library is not loaded, or nothing has called listen() yet."""


def _mapping_address(pid: int) -> int:
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and fields[5].startswith(MAPPING):
            return int(fields[0].split("-")[0], 16)
    raise NotPreloaded(f"process {pid} runs without libfsocket.so, or does not listen yet")


def read(pid: int) -> list[CpuCounters]:
    """The counters of the server that process belongs to, one entry per configured CPU.

    Raises NotPreloaded; ProcessLookupError, FileNotFoundError or PermissionError as /proc does.
    """
    address = _mapping_address(pid)
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        memory.seek(address)
        magic, version, cpus, offset, _ = _HEADER.unpack(memory.read(_HEADER.size))
        if magic != b"FSOCKET\0" or version != VERSION:
            raise NotPreloaded(f"process {pid} has another version of libfsocket.so")
        memory.seek(address + offset)
        raw = memory.read(cpus * _CPU.size)
    return [CpuCounters(cpu, *values) for cpu, values in enumerate(_CPU.iter_unpack(raw))]
