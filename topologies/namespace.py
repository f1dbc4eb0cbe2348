"""Acting inside a host's network namespace."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mininet.node import Node
from pyroute2.netns import popns, pushns

from fastsocket.steering.device import CLONE_NEWNET, enter_network

ESTABLISHED_TABLE = "net/ipv4/tcp_child_ehash_entries"  # Linux 6.1, commit d1e5e6408b30


@contextmanager
def inside(host: Node) -> Iterator[None]:
    """The calling thread, and what it starts, in the host's network namespace (setns(2)).

    Preferred to IPRoute(netns=...), which forks a child that ends by a signal and so runs our handlers twice.
    """
    pushns(f"/proc/{host.pid}/ns/net")
    try:
        yield
    finally:
        popns()


@contextmanager
def parent_of_tables(entries: int) -> Iterator[None]:
    """The calling thread in a new network namespace. One that is made from there gets a table of established
    connections of its own, with so many entries."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/thread-self/ns/net") as before:
        if libc.unshare(CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"unshare: {os.strerror(ctypes.get_errno())}")
        try:
            Path("/proc/sys", ESTABLISHED_TABLE).write_text(f"{entries}")
            yield
        finally:
            enter_network(before.fileno())
