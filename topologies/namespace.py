"""Acting inside a host's network namespace."""

from collections.abc import Iterator
from contextlib import contextmanager

from mininet.node import Node
from pyroute2.netns import popns, pushns


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
