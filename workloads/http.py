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
        with inside(client):
            connection = socket.create_connection((address, PORT), timeout=limits.read().answer_seconds)
        with connection:
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
            return b"".join(iter(lambda: connection.recv(4096), b"")).endswith(OBJECT)
    except OSError:
        return False
