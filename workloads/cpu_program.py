"""A classic BPF program that chooses among a server's own SO_REUSEPORT listeners by the CPU.

A server's authors may make connections local in this way, without libfsocket.so (SO_ATTACH_REUSEPORT_CBPF, socket(7)).
The lab attaches the program once the server listens.
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
# From <linux/filter.h>. The codes: load a word, jump if it equals, return. Then the address of the current CPU's
# number, and the result that names no listener, with which the kernel takes any.
LOAD, JUMP_IF, RETURN = 0x20, 0x15, 0x06
THE_CPU, NO_LISTENER = 0xFFFFF000 + 36, 0xFFFFFFFF


def choose_by_cpu(pid: int, port: int) -> None:
    """Attach the program to the listeners of a server, once each listener has a pinned worker.

    The program returns a listener's place in the order of listen() calls. Servers open descriptors in that order.
    Raises WorkloadError when a listener gets no pinned worker in time.
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
    """A classic BPF program that chooses a group's i-th listener for connections on the i-th of these CPUs."""
    chosen = [code for index, cpu in enumerate(cpus) for code in (_code(JUMP_IF, cpu, if_not=1), _code(RETURN, index))]
    return b"".join([_code(LOAD, THE_CPU), *chosen, _code(RETURN, NO_LISTENER)])


def _code(code: int, value: int, if_not: int = 0) -> bytes:
    """One instruction as struct sock_filter. if_not: how many instructions a jump skips when its test fails."""
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
    """The CPUs where the workers of a listener may run."""
    return sorted({cpu for worker in listener.workers for cpu in worker.cpus()})


def _opened(pid: int) -> dict[int, int]:
    """The lowest descriptor of each socket of a server, by its inode."""
    numbers: dict[int, int] = {}
    for member in family(pid):
        for number, inode in sockets(member):
            numbers[inode] = min(number, numbers.get(inode, number))
    return numbers
