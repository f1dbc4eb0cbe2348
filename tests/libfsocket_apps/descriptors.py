"""What the kernel says of a descriptor, and where a program can bind and connect."""

import fcntl
import os
import select
import socket
import struct
import termios
from contextlib import suppress

from libc import (
    ANY,
    FAMILIES,
    LOOPBACK,
    Answer,
    call,
    failed,
    family_of,
    name_of,
    option_bytes,
    option_of,
    pack,
    port_of,
    unpack,
)

SO_COOKIE = 57


def is_nonblocking(descriptor: int) -> bool:
    return bool(fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_NONBLOCK)


def closes_on_exec(descriptor: int) -> bool:
    return bool(fcntl.fcntl(descriptor, fcntl.F_GETFD) & fcntl.FD_CLOEXEC)


def is_open(descriptor: int) -> bool:
    return not failed(call("fcntl", descriptor, fcntl.F_GETFD))


def cookie_of(descriptor: int) -> Answer:
    return option_of(descriptor, socket.SOL_SOCKET, SO_COOKIE)


def has_something(connection: int) -> bool:
    asked = select.poll()
    asked.register(connection, select.POLLIN | select.POLLPRI | select.POLLRDHUP)
    return bool(asked.poll(0))


def has_unread_data(connection: int) -> bool:
    size = bytearray(4)
    with suppress(OSError):
        fcntl.ioctl(connection, termios.FIONREAD, size)
    return any(size)


def state_of(descriptor: int) -> int | None:
    """tcpi_state; None: it is not of TCP."""
    information = option_bytes(descriptor, socket.IPPROTO_TCP, socket.TCP_INFO, 1)
    return information[0] if isinstance(information, bytes) else None


def waiting_connections(listener: int) -> int:
    """tcpi_unacked, which of a listener is the length of its accept queue."""
    return struct.unpack_from("I", option_bytes(listener, socket.IPPROTO_TCP, socket.TCP_INFO, 28), 24)[0]


def family_of_socket(descriptor: int) -> str | None:
    address = name_of(descriptor)
    return None if failed(address) else family_of(address)


def port_of_socket(descriptor: int) -> int:
    address = name_of(descriptor)
    return 0 if failed(address) else port_of(address)


def free_port(family: str, host: str) -> int:
    with socket.socket(FAMILIES[family]) as probe:
        probe.bind((host, 0))
        return probe.getsockname()[1]


def reachable(address: bytes) -> bytes:
    """Where to find who is bound to any address."""
    family = family_of(address)
    if family in LOOPBACK and unpack(address)["host"] == ANY[family]:
        return pack(family, LOOPBACK[family], port_of(address))
    return address
