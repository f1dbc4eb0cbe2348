"""Connections across a testbed, and the CPU on which the server handled each."""

import select
import socket
import struct
import subprocess

from fastsocket.steering.cpus import machine_cpus
from fastsocket.steering.ports import core_of_port, port_mask
from fastsocket.steering.rss import indirection, toeplitz
from tests.harness.cpus import ALL_CPUS
from tests.harness.patience import patient
from topologies.namespace import inside
from topologies.testbed import ipv6_address

SOURCES = range(20000, 20000 + max(30, 4 * len(ALL_CPUS)))  # enough that RSS uses every CPU


def run_in(host, *command):
    with inside(host):
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def listen(testbed, family, port):
    with inside(testbed.server):
        listener = socket.socket(family)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("", port))
        listener.listen(128)
    return listener


def cpu_that_handled(testbed, listener, source_port, family=socket.AF_INET):
    """Connect from this port; the CPU on which the server's softirq handled the handshake."""
    server = testbed.server.IP() if family == socket.AF_INET else ipv6_address(testbed.server.intf())
    with inside(testbed.client):
        client = socket.socket(family)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        client.bind(("", source_port))
        client.connect((server, listener.getsockname()[1]))
    with client:
        accepted, _ = listener.accept()
        with accepted:
            return accepted.getsockopt(socket.SOL_SOCKET, socket.SO_INCOMING_CPU)


def rss_cpu(testbed, source_port, port, family):
    """Where RSS must send a connection, computed apart from the BPF program."""
    if family == socket.AF_INET:
        addresses = (testbed.client.IP(), testbed.server.IP())
    else:
        addresses = (ipv6_address(testbed.client.intf()), ipv6_address(testbed.server.intf()))
    data = b"".join(socket.inet_pton(family, address) for address in addresses)
    return indirection(ALL_CPUS)[toeplitz(data + struct.pack("!HH", source_port, port)) % 128]


def steered(first: int) -> list[int]:
    """From this port on as many as it takes to have some of every CPU, but none of CPUs that we may not use."""
    ports = range(first, first + 8 * (port_mask(machine_cpus()) + 1))
    return [port for port in ports if core_of_port(port) in ALL_CPUS]


def active_connection_cpu(testbed, backend, source_port, family=socket.AF_INET):
    """Connect from the server to the client; the CPU on which the server's softirq handled the answer."""
    with inside(testbed.server):
        active = socket.socket(family)
        active.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        active.bind(("", source_port))
        active.connect(backend.getsockname()[:2])
    with active, backend.accept()[0] as passive:
        passive.sendall(b"x")
        select.select([active], [], [], patient(5))
        return active.getsockopt(socket.SOL_SOCKET, socket.SO_INCOMING_CPU)
