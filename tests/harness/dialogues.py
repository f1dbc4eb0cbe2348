"""Conversations with servers, frame by frame. Each returns when all that it asked for has come."""

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from tests.harness.apps import LOOPBACK
from tests.harness.waiting import WAIT_SECONDS

HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, SETTINGS = 0, 1, 4  # types of frames: RFC 9113, section 6
END_STREAM, END_HEADERS, ACK = 1, 4, 1  # flags
GET_ROOT = (
    b"\x82\x87\x84\x41\x09localhost"  # method, scheme and path by their numbers in HPACK (RFC 7541), host in full
)
MASK = bytes(4)  # of what a WebSocket's client sends


@contextmanager
def connected(port: int) -> Iterator[socket.socket]:
    with socket.create_connection((LOOPBACK, port), timeout=WAIT_SECONDS) as connection:
        yield connection


@contextmanager
def encrypted(port: int, protocol: str) -> Iterator[ssl.SSLSocket]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols([protocol])
    with connected(port) as plain, context.wrap_socket(plain) as connection:
        yield connection


def exactly(connection: socket.socket, size: int) -> bytes:
    """The next bytes, or fewer before the end."""
    data = b""
    while len(data) < size and (more := connection.recv(size - len(data))):
        data += more
    return data


def https(port: int, path: str = "/") -> bytes:
    """One request on one connection; the body."""
    with encrypted(port, "http/1.1") as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        return b"".join(iter(lambda: connection.recv(65536), b"")).partition(b"\r\n\r\n")[2]


class Frame(NamedTuple):
    """Of HTTP/2."""

    kind: int
    flags: int
    stream: int
    payload: bytes = b""

    def __bytes__(self) -> bytes:
        head = len(self.payload).to_bytes(3, "big") + bytes([self.kind, self.flags]) + self.stream.to_bytes(4, "big")
        return head + self.payload


def next_frame(connection: socket.socket) -> Frame:
    head = exactly(connection, 9)
    return Frame(head[3], head[4], int.from_bytes(head[5:]), exactly(connection, int.from_bytes(head[:3])))


def http2(port: int, over_tls: bool = True, requests: int = 5) -> bytes:
    """Requests one after the other on one connection; the bodies."""
    bodies = b""
    with encrypted(port, "h2") if over_tls else connected(port) as connection:
        connection.sendall(HTTP2_PREFACE + bytes(Frame(SETTINGS, 0, 0)) + bytes(Frame(SETTINGS, ACK, 0)))
        for stream in range(1, 2 * requests, 2):
            connection.sendall(bytes(Frame(HEADERS, END_STREAM | END_HEADERS, stream, GET_ROOT)))
            frame = Frame(SETTINGS, 0, 0)
            while not (frame.stream == stream and frame.flags & END_STREAM):
                frame = next_frame(connection)
                bodies += frame.payload if frame.kind == DATA else b""
    return bodies


def websocket(port: int, messages: int = 5) -> bytes:
    """Messages to an echo, one after the other (RFC 6455); what came back."""
    echoed = b""
    with connected(port) as connection:
        connection.sendall(
            b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += exactly(connection, 1)
        assert b" 101 " in head
        for number in range(messages):
            connection.sendall(b"\x81\x81" + MASK + b"%d" % number)
            echoed += exactly(connection, 3)[2:]
    return echoed
