"""A client, a proxy and a backend in a row: the testbed of the slides' HAProxy benchmark.

Mininet's own command line can make it, too: ``mn --custom topologies/proxy.py --topo proxy``.
"""

from mininet.topo import Topo


class Proxy(Topo):
    """Three hosts in a row: client — server — backend. The server is the proxy, with a network device for each side."""

    def build(self) -> None:
        client = self.addHost("client", ip="10.0.0.1/24")
        server = self.addHost("server", ip="10.0.0.2/24")
        backend = self.addHost("backend", ip="10.0.1.1/24")
        self.addLink(client, server)
        self.addLink(server, backend, params1={"ip": "10.0.1.2/24"})


topos = {"proxy": Proxy}
