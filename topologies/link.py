"""A veth link with as many queues as a server NIC would have."""

from functools import partial

from mininet.link import Link
from pyroute2 import IPRoute

from topologies.namespace import inside


class MultiQueueLink(Link):
    """Mininet's veth link, with ``queues`` receive and transmit queues at both ends (veth(4), rtnetlink(7))."""

    def __init__(self, *args, queues: int, **params):
        self.makeIntfPair = partial(self._make_pair, queues)
        super().__init__(*args, **params)

    @staticmethod
    def _make_pair(queues, name1, name2, addr1, addr2, node1, node2, deleteIntfs):
        """One request makes both ends, each in its own namespace: the host's never sees them."""
        shape = {"num_rx_queues": queues, "num_tx_queues": queues}
        near = {"ifname": name1, **shape, **({"address": addr1} if addr1 else {})}
        far = {"ifname": name2, **shape, "net_ns_pid": node2.pid, **({"address": addr2} if addr2 else {})}
        with inside(node1), IPRoute() as netlink:
            netlink.link("add", kind="veth", peer=far, **near)
