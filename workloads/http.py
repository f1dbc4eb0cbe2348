"""The object that web servers and proxies serve, and a request for it."""

from topologies.client import Client
from workloads import limits

OBJECT = b"x" * 63 + b"\n"
PORT = 80


def answers(client: Client, address: str) -> bool:
    """Whether a request from the client is answered with the object."""
    try:
        return answer(client, address).endswith(OBJECT)
    except OSError:
        return False


def answer(client: Client, address: str) -> bytes:
    """The server's answer to a request from the client, with its headers. Raises OSError."""
    request = f"GET / HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    return client.ask(address, PORT, request.encode(), limits.read().answer_seconds)
