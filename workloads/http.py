"""What the web servers and proxies serve, and asking them for it."""

import socket

from mininet.node import Host

from topologies.namespace import inside
from workloads import limits

OBJECT = b"x" * 63 + b"\n"
PORT = 80


def answers(client: Host, address: str) -> bool:
    """Whether a request from the client is answered with the object."""
    try:
        return answer(client, address).endswith(OBJECT)
    except OSError:
        return False


def answer(client: Host, address: str) -> bytes:
    """To a request from the client, with its headers. Raises OSError."""
    with inside(client):
        connection = socket.create_connection((address, PORT), timeout=limits.read().answer_seconds)
    with connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n" % address.encode())
        return b"".join(iter(lambda: connection.recv(4096), b""))
