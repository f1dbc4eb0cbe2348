"""Act inside a host's network namespace."""

import ctypes
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from pyroute2.netns import popns, pushns

from fastsocket.steering.device import CLONE_NEWNET, enter_network

ESTABLISHED_TABLE = "net/ipv4/tcp_child_ehash_entries"  # Linux 6.1, commit d1e5e6408b30


class Inhabited(Protocol):
    """A network namespace, known by the id of a process in it."""

    pid: int


@contextmanager
def inside(host: Inhabited) -> Iterator[None]:
    """Put the calling thread, and what it starts, into the host's network namespace for the with block (setns(2)).

    IPRoute(netns=...) is not used instead, because it forks a child that ends by a signal and so runs our handlers
    twice.
    """
    pushns(f"/proc/{host.pid}/ns/net")
    try:
        yield
    finally:
        popns()


class Namespace:
    """A host on this machine. It is a topologies.client.Client. pid: a process in the host's namespaces."""

    pid: int

    def command(self, cpus: list[int], argv: list[str]) -> list[str]:
        """The command line that runs argv inside the host, pinned to these CPUs."""
        return ["mnexec", "-a", str(self.pid), "taskset", "--cpu-list", ",".join(map(str, cpus)), *argv]

    def deploy(self, file: Path) -> str:
        return str(file)

    def ask(self, address: str, port: int, request: bytes, seconds: float) -> bytes:
        with inside(self):
            connection = socket.create_connection((address, port), timeout=seconds)
        with connection:
            connection.sendall(request)
            return b"".join(iter(lambda: connection.recv(4096), b""))


@contextmanager
def parent_of_tables(entries: int) -> Iterator[None]:
    """Put the calling thread into a new network namespace for the with block.

    Each namespace that is made in the block gets a hash table of established connections of its own, with so many
    entries.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/thread-self/ns/net") as before:
        if libc.unshare(CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"unshare: {os.strerror(ctypes.get_errno())}")
        try:
            Path("/proc/sys", ESTABLISHED_TABLE).write_text(f"{entries}")
            yield
        finally:
            enter_network(before.fileno())
