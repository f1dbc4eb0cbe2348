"""A veth link with as many queues as a server NIC would have."""

from functools import partial
from typing import Any

from mininet.link import Link
from mininet.node import Node
from pyroute2 import IPRoute

from topologies.namespace import inside


class MultiQueueLink(Link):
    """Mininet's veth link, with ``queues`` receive and transmit queues at both ends (veth(4), rtnetlink(7))."""

    def __init__(self, *args: Any, queues: int, **params: Any):
        self.makeIntfPair = partial(self._make_pair, queues)
        super().__init__(*args, **params)

    @staticmethod
    def _make_pair(
        queues: int,
        name1: str,
        name2: str,
        addr1: str | None,
        addr2: str | None,
        node1: Node,
        node2: Node,
        deleteIntfs: bool,
    ) -> None:
        """Make both ends with one netlink request, each in its host's namespace. The machine's own never has them."""
        shape = {"num_rx_queues": queues, "num_tx_queues": queues}
        near = {"ifname": name1, **shape, **({"address": addr1} if addr1 else {})}
        far = {"ifname": name2, **shape, "net_ns_pid": node2.pid, **({"address": addr2} if addr2 else {})}
        with inside(node1), IPRoute() as netlink:
            netlink.link("add", kind="veth", peer=far, **near)
