"""Operations on sockets: each returns what the call behind it answered."""

import ctypes
import os
import socket
import string
import struct

from barrier import interrupted, wait_until_acknowledged, wait_until_arrived
from descriptors import (
    closes_on_exec,
    cookie_of,
    family_of_socket,
    free_port,
    is_nonblocking,
    reachable,
    state_of,
)
from libc import (
    ANY,
    FAMILIES,
    LOOPBACK,
    AddressBuffer,
    Answer,
    call,
    failed,
    family_of,
    name_of,
    option_of,
    pack,
    pack_unix,
    port_of,
    set_option,
    unpack,
)
from memory import Memory

LETTERS = string.ascii_lowercase
BINDING_ATTEMPTS = 5
CLOSED = 7  # TCP_CLOSE


class SocketCalls(Memory):
    def socket(self, family: str, kind: str, flags: int) -> Answer:
        type_ = {"stream": socket.SOCK_STREAM, "datagram": socket.SOCK_DGRAM}[kind]
        return self._opened(call("socket", FAMILIES[family], type_ | flags, 0), "socket")

    def set_option(self, descriptor: int, level: int, name: int, value: int) -> Answer:
        answer = set_option(descriptor, level, name, value)
        if (level, name) == (socket.SOL_SOCKET, socket.SO_REUSEPORT) and answer == 0:
            (self._reuseport.add if value else self._reuseport.discard)(cookie_of(descriptor))
        return answer

    def get_option(self, descriptor: int, level: int, name: int) -> Answer:
        answer = option_of(descriptor, level, name)
        if name == socket.SO_INCOMING_CPU and not failed(answer):
            return "a CPU" if answer < os.cpu_count() else "none"
        return answer

    def bind(self, descriptor: int, where: str, named: bool) -> Answer:
        """To "loopback" or to "any" address; a free port is named or left to the kernel, as Unix names always are."""
        family = family_of_socket(descriptor)
        hosts = LOOPBACK if where == "loopback" else ANY
        if family not in hosts:
            return self._bind(descriptor, pack_unix(b""))
        if named:
            return self._bind_to_free_port(descriptor, family, hosts[family])
        return self._bind(descriptor, pack(family, hosts[family], 0))

    def _bind_to_free_port(self, descriptor: int, family: str, host: str) -> Answer:
        """Again where somebody else has taken it meanwhile."""
        for _ in range(BINDING_ATTEMPTS):
            answer = self._bind(descriptor, pack(family, host, free_port(family, host)))
            if answer != "EADDRINUSE":
                break
        return answer

    def bind_path(self, descriptor: int, name: str) -> Answer:
        return self._bind(descriptor, pack_unix(name.encode() + b"\0"))

    def bind_like(self, descriptor: int, other: int) -> Answer:
        """Unless it is a client that has given its port back: an earlier program's TIME_WAIT may have that."""
        if self._roles.get(other) == "client" and state_of(other) == CLOSED:
            return "left to chance"
        address = name_of(other)
        return address if failed(address) else self._bind(descriptor, address)

    def _bind(self, descriptor: int, address: bytes) -> Answer:
        answer = call("bind", descriptor, address, len(address))
        if answer == 0 and port_of(address):
            self._named.add(cookie_of(descriptor))
        return answer

    def listen(self, descriptor: int, backlog: int) -> Answer:
        answer = call("listen", descriptor, backlog)
        if answer == 0:
            self._roles[descriptor] = "listener"
        return answer

    def accept(self, descriptor: int, flags: int | None, with_address: bool) -> list:
        """accept4() if there are flags, even 0."""
        buffer = AddressBuffer()
        arguments = [descriptor, *(buffer.arguments if with_address else (None, None))]
        with interrupted():
            answer = call("accept", *arguments) if flags is None else call("accept4", *arguments, flags)
        if failed(answer):
            return [answer]
        if self.has_older_connections(descriptor):
            self._older[cookie_of(descriptor)] -= 1
        self._opened(answer, "accepted")
        peer = unpack(buffer.read()) if with_address else None
        return [answer, is_nonblocking(answer), closes_on_exec(answer), peer]

    def connect(self, descriptor: int, target: int) -> Answer:
        address = self._address_of(target)
        return address if failed(address) else self._connect(descriptor, reachable(address))

    def _address_of(self, target: int) -> bytes | str:
        """Unless it is that of a SO_REUSEPORT group: which of them gets a connection is left to chance."""
        group = {cookie_of(listener) for listener in self._listeners_at(target)}
        return "left to chance" if len(group) > 1 else name_of(target)

    def connect_nowhere(self, descriptor: int) -> Answer:
        family = family_of_socket(descriptor)
        return self._connect(descriptor, pack(family, LOOPBACK[family], 1) if family in LOOPBACK else pack_unix(b"x"))

    def disconnect(self, descriptor: int) -> Answer:
        return self._connect(descriptor, struct.pack("=H14x", socket.AF_UNSPEC))

    def _connect(self, descriptor: int, address: bytes) -> Answer:
        answer = call("connect", descriptor, address, len(address))
        if self._roles.get(descriptor) == "socket" and answer in (0, "EINPROGRESS"):
            self._roles[descriptor] = "client"
        return answer

    def client(self, target: int, family: str | None, flags: int) -> list:
        """A new socket, connected to this one; to a port of both families from the one or the other."""
        address = self._address_of(target)
        if failed(address):
            return [address]
        if family and family_of(address) in LOOPBACK:
            address = pack(family, LOOPBACK[family], port_of(address))
        descriptor = self.socket(family_of(address), "stream", flags)
        return [descriptor] if failed(descriptor) else [descriptor, self._connect(descriptor, reachable(address))]

    def name(self, descriptor: int, which: str) -> dict | str:
        address = name_of(descriptor, which)
        return address if failed(address) else unpack(address)

    def send(self, descriptor: int, size: int) -> Answer:
        """Another letter each time, so that no stream is taken for another."""
        self._sent += 1
        data = LETTERS[self._sent % len(LETTERS)] * size
        answer = call("send", descriptor, data.encode(), size, socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT)
        wait_until_arrived(descriptor)
        return answer

    def answer(self, descriptor: int, size: int, after_reading: bool) -> list:
        """Write and close at once: in one turn."""
        received = self.recv(descriptor, 4096, socket.MSG_DONTWAIT) if after_reading else None
        wait_until_acknowledged(descriptor)
        sent = call("send", descriptor, b"!" * size, size, socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT)
        closed = call("close", descriptor)
        self._closed(descriptor, descriptor)
        return [received, sent, closed]

    def recv(self, descriptor: int, size: int, flags: int) -> list:
        buffer = ctypes.create_string_buffer(size)
        with interrupted():
            answer = call("recv", descriptor, buffer, size, flags)
        return [answer] if failed(answer) else [answer, buffer.raw[:answer].decode()]

    def shutdown(self, descriptor: int, how: int) -> Answer:
        answer = call("shutdown", descriptor, how)
        wait_until_arrived(descriptor)
        return answer
