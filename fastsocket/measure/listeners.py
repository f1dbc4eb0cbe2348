"""The TCP listeners of a network namespace, as the kernel tells them over netlink: sock_diag(7), <linux/inet_diag.h>.

A caller needs no privilege for its own namespace. Any other namespace has to be entered (CAP_SYS_ADMIN).
"""

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Self

from fastsocket.steering.device import network_inode, network_of

NETLINK_SOCK_DIAG, SOCK_DIAG_BY_FAMILY = 4, 20
NLM_F_REQUEST, NLM_F_DUMP, NLMSG_ERROR, NLMSG_DONE = 0x001, 0x300, 2, 3
TCP_LISTEN = 10
INET_DIAG_SKMEMINFO, SK_MEMINFO_DROPS = 7, 8
_HEAD = struct.Struct("=IHHII")  # struct nlmsghdr
_REQUEST = struct.Struct("=BBBxI48x")  # struct inet_diag_req_v2; the 48 zero bytes ask for any socket
_ANSWER = struct.Struct("=BBBB2s2s16s28xIIIII")  # struct inet_diag_msg
_ATTRIBUTE = struct.Struct("=HH")
_BYTES = 1 << 16


@dataclass(frozen=True)
class Listening:
    """A listener at one moment."""

    inode: int
    address: str
    port: int
    queue: int  # connections that wait for accept()
    limit: int  # how many connections may wait: the backlog
    dropped: int  # connections and handshakes that were dropped since it began to listen

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


class Listeners(AbstractContextManager["Listeners"]):
    """Ask for the listeners in the network namespace of a process. Raises OSError where it may not be entered."""

    def __init__(self, process: int):
        with _network_of(process):
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_SOCK_DIAG)

    def read(self) -> dict[int, Listening]:
        """The listeners by inode. Raises OSError where the kernel does not tell them."""
        found = [listener for family in (socket.AF_INET, socket.AF_INET6) for listener in self._of(family)]
        return {listener.inode: listener for listener in found}

    def _of(self, family: int) -> Iterator[Listening]:
        asked = _REQUEST.pack(family, socket.IPPROTO_TCP, 1 << (INET_DIAG_SKMEMINFO - 1), 1 << TCP_LISTEN)
        head = _HEAD.pack(_HEAD.size + len(asked), SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST | NLM_F_DUMP, 0, 0)
        self._socket.send(head + asked)
        while True:
            for kind, body in _messages(self._socket.recv(_BYTES)):
                if kind == NLMSG_DONE:
                    return
                if kind == NLMSG_ERROR:
                    code = -int(struct.unpack_from("=i", body)[0])
                    raise OSError(code, os.strerror(code))
                yield _listening(body)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._socket.close()


def _network_of(process: int) -> AbstractContextManager[None]:
    return nullcontext() if network_inode("self") == network_inode(process) else network_of(process)


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    while data:
        length, kind, *_ = _HEAD.unpack_from(data)
        yield kind, data[_HEAD.size : length]
        data = data[(length + 3) & ~3 :]


def _listening(body: bytes) -> Listening:
    family, _, _, _, port, _, address, _, queue, limit, _, inode = _ANSWER.unpack_from(body)
    shown = socket.inet_ntop(family, address if family == socket.AF_INET6 else address[:4])
    return Listening(inode, shown, int.from_bytes(port, "big"), queue, limit, _dropped(body[_ANSWER.size :]))


def _dropped(attributes: bytes) -> int:
    while len(attributes) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(attributes)
        if kind == INET_DIAG_SKMEMINFO:
            return int(struct.unpack_from("=I", attributes, _ATTRIBUTE.size + 4 * SK_MEMINFO_DROPS)[0])
        attributes = attributes[(length + 3) & ~3 :]
    return 0
