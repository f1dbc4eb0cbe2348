"""Locality by hand, as a server's authors may have it: a classic BPF program that chooses among the server's own
SO_REUSEPORT listeners by the CPU (SO_ATTACH_REUSEPORT_CBPF, socket(7)). The lab attaches it once the server listens.
"""

import ctypes
import socket
import struct
import time
from collections import defaultdict

from fastsocket.attach.changes import borrowed
from fastsocket.attach.plan import CannotAttach
from fastsocket.attach.workers import Listener, Watched
from fastsocket.processes import family, sockets
from workloads import limits
from workloads.process import POLL_SECONDS, WorkloadError

SO_ATTACH_REUSEPORT_CBPF = 51  # <asm-generic/socket.h>
# Of <linux/filter.h>: load a word, jump if it equals, return; the CPU; no listener, so the kernel takes any.
LOAD, JUMP_IF, RETURN = 0x20, 0x15, 0x06
THE_CPU, NO_LISTENER = 0xFFFFF000 + 36, 0xFFFFFFFF


def choose_by_cpu(pid: int, port: int) -> None:
    """For the listeners of a server, once each has a pinned worker. Raises WorkloadError when that does not come to be.

    The program returns a listener's place in the order of listen() calls. Servers open descriptors in that order.
    """
    groups, order = defaultdict(list), _opened(pid)
    for one in sorted(_found(pid, port), key=lambda one: order[one.inode]):
        groups[one.address].append(one)
    try:
        for group in groups.values():
            with borrowed(family(pid), group[0].inode) as listener:
                _attach(listener, program([_cpus(one)[0] for one in group]))
    except CannotAttach as error:
        raise WorkloadError(str(error)) from error


def program(cpus: list[int]) -> bytes:
    """Classic BPF: the i-th listener of a group for connections that come in on the i-th of these CPUs."""
    chosen = [code for index, cpu in enumerate(cpus) for code in (_code(JUMP_IF, cpu, if_not=1), _code(RETURN, index))]
    return b"".join([_code(LOAD, THE_CPU), *chosen, _code(RETURN, NO_LISTENER)])


def _code(code: int, value: int, if_not: int = 0) -> bytes:
    """struct sock_filter; if_not: how many to skip."""
    return struct.pack("=HBBI", code, 0, if_not, value)


def _attach(listener: socket.socket, code: bytes) -> None:
    text = ctypes.create_string_buffer(code, len(code))
    program_of = struct.pack("@HP", len(code) // 8, ctypes.addressof(text))  # struct sock_fprog
    listener.setsockopt(socket.SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, program_of)


def _found(pid: int, port: int) -> list[Listener]:
    deadline = time.monotonic() + limits.read().start_seconds
    while True:
        found = [one for one in Watched(pid).look() if one.address.endswith(f":{port}")]
        if found and all(len(_cpus(one)) == 1 for one in found):
            return found
        if time.monotonic() > deadline:
            raise WorkloadError(f"not each of {len(found)} listeners has a pinned thread that waits")
        time.sleep(POLL_SECONDS)


def _cpus(listener: Listener) -> list[int]:
    """Of its workers."""
    return sorted({cpu for worker in listener.workers for cpu in worker.cpus()})


def _opened(pid: int) -> dict[int, int]:
    """The lowest descriptor of each socket of a server, by its inode."""
    numbers: dict[int, int] = {}
    for member in family(pid):
        for number, inode in sockets(member):
            numbers[inode] = min(number, numbers.get(inode, number))
    return numbers
