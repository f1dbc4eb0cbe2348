"""A client that opens connections as it is told: each line of stdin is [how, port, number of connections].

It answers with the seconds until the first byte of each answer.
"""

import select
import socket
import time
from contextlib import suppress

from lines import Commands, say


def until_ready(connection: socket.socket, events: int) -> None:
    with select.epoll() as epoll:
        epoll.register(connection, events)
        epoll.poll()


def begin(port: int) -> socket.socket:
    connection = socket.socket()
    connection.setblocking(False)
    with suppress(BlockingIOError):
        connection.connect(("127.0.0.1", port))
    return connection


def rest(connection: socket.socket) -> None:
    connection.setblocking(True)
    while connection.recv(4096):
        pass


def write_first(port: int) -> socket.socket:
    """As proxies do."""
    connection = begin(port)
    until_ready(connection, select.EPOLLOUT)
    connection.send(b"close\n")
    until_ready(connection, select.EPOLLIN)
    return connection


def write_first_when_told(port: int) -> socket.socket:
    """As busy proxies do: the connection opens after a wait has begun that ends for another reason."""
    connection = begin(port)
    select.select([], [], [], 0)
    until_ready(connection, select.EPOLLOUT)
    connection.send(b"close\n")
    until_ready(connection, select.EPOLLIN)
    return connection


def write_first_blocking(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port))
    connection.send(b"close\n")
    return connection


def read_first(port: int) -> socket.socket:
    connection = begin(port)
    until_ready(connection, select.EPOLLIN)
    return connection


def read_first_blocking(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port))


def seconds(how: str, port: int) -> float:
    began = time.monotonic()
    with globals()[how](port) as connection:
        connection.setblocking(True)
        connection.recv(1)
        first = time.monotonic()
        rest(connection)
    return first - began


socket.create_server(("127.0.0.1", 0))  # so that the library has its counters
commands = Commands(0)
while command := commands.next():
    how, port, number = command
    say([seconds(how, port) for _ in range(number)])
