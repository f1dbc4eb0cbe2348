"""A client and a server on one link: the testbed of the slides' nginx benchmark.

Mininet's own command line can make it, too: ``mn --custom topologies/pair.py --topo pair``.
"""

from mininet.topo import Topo


class Pair(Topo):
    """Two hosts on one link: client — server."""

    def build(self) -> None:
        client = self.addHost("client", ip="10.0.0.1/24")
        server = self.addHost("server", ip="10.0.0.2/24")
        self.addLink(client, server)


topos = {"pair": Pair}
