"""Hold connections to one destination. Only their near ends exist, by TCP_REPAIR, so no packet is sent for them.

The connections take the source ports that a proxy's own connections would have taken. The kernel's connect() takes the
even ports first (Linux 4.2, commit 07f4c90062f8); the library takes any. Each source address has PER_ADDRESS of the
connections, beginning with the host's own address.

    python3 held.py ADDRESS PORT CONNECTIONS even-first|any

The program prints a line when all connections exist, and ends after LONGEST_SECONDS. It imports the standard library
only.
"""

import errno
import os
import random
import resource
import signal
import socket
import struct
import sys
from collections.abc import Iterator
from typing import NoReturn

TCP_REPAIR = 19  # <linux/tcp.h>: with it neither connect() nor close() sends a packet
# From <linux/in.h>. IP_TRANSPARENT lets a socket have an address that this host does not have.
IP_TRANSPARENT, IP_BIND_ADDRESS_NO_PORT, IP_LOCAL_PORT_RANGE = 19, 24, 51
PORTS = range(1024, 65536)  # a testbed's net.ipv4.ip_local_port_range
PER_ADDRESS = 50_000
LONGEST_SECONDS = 600
OTHER_DESCRIPTORS = 64

children: list[int] = []

Source = tuple[str, int]


def sources(connections: int, even_first: bool) -> Iterator[Source]:
    """The source address and port of each connection. The address "" is the host's own."""
    for number, done in enumerate(range(0, connections, PER_ADDRESS)):
        address = f"10.255.0.{number}" if number else ""
        for port in ports(even_first)[: min(PER_ADDRESS, connections - done)]:
            yield address, port


def ports(even_first: bool) -> list[int]:
    """All ports, in the order in which connections take them."""
    shuffled = random.sample(PORTS, len(PORTS))
    return sorted(shuffled, key=lambda port: port % 2) if even_first else shuffled


def connect(source: Source, to: tuple[str, int]) -> socket.socket:
    address, port = source
    one = socket.socket()
    one.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
    one.setsockopt(socket.IPPROTO_IP, IP_LOCAL_PORT_RANGE, struct.pack("=HH", port, port))
    if address:
        one.setsockopt(socket.IPPROTO_IP, IP_TRANSPARENT, 1)
        one.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)  # else bind() takes a port from all addresses
        one.bind((address, 0))
    try:
        one.connect(to)
    except OSError as error:
        if error.errno != errno.EADDRNOTAVAIL:  # another connection that is just ending still has the port: it is taken
            raise
    return one


def hold(part: list[Source], to: tuple[str, int], ready: int) -> NoReturn:
    """Open a part of the connections in a process of its own, say so through the pipe, and wait to be killed."""
    _connections = [connect(source, to) for source in part]
    os.write(ready, b"\n")
    os.close(ready)
    while True:
        signal.pause()


def end_all(*signal_and_frame: object) -> NoReturn:
    """Kill all children, and exit once the kernel has closed their connections."""
    for child in children:
        os.kill(child, signal.SIGKILL)
    for child in children:
        os.waitpid(child, 0)
    sys.exit()


def main(address: str, port: str, connections: str, order: str) -> None:
    signal.signal(signal.SIGTERM, end_all)
    signal.signal(signal.SIGALRM, end_all)
    signal.alarm(LONGEST_SECONDS)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    each, planned = most - OTHER_DESCRIPTORS, list(sources(int(connections), order == "even-first"))
    parts = [planned[first : first + each] for first in range(0, len(planned), each)]
    ready, told = os.pipe()
    for part in parts:
        child = os.fork()
        if child == 0:
            children.clear()
            hold(part, (address, int(port)), told)
        children.append(child)
    os.close(told)
    if sum(len(os.read(ready, 1)) for _ in parts) < len(parts):
        end_all()
    print("held", flush=True)
    signal.pause()


if __name__ == "__main__":
    main(*sys.argv[1:])
