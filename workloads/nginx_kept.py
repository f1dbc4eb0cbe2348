"""nginx with 16 connections that stay open. The worker that accepted a connection serves all of its requests."""

from topologies.testbed import Testbed
from workloads.generator import Dialogue, as_demanded
from workloads.http import OBJECT
from workloads.load import Demand, Load
from workloads.nginx import OBJECT as SITE
from workloads.nginx import Nginx, Site
from workloads.workload import Cpus

CONNECTIONS = 16
KEPT = Site(answer=f"keepalive_requests 100000000; {SITE.answer}", kept_seconds=60)


class NginxKept(Nginx):
    """nginx with kept connections. The load generator opens all of them before its first request."""

    name, metric, loader = "nginx-kept", "rps", ""
    site = KEPT

    def load(self, testbed: Testbed, cpus: Cpus, demand: Demand) -> Load:
        dialogue = Dialogue(
            request="GET / HTTP/1.1\r\nHost: server\r\n\r\n",
            begins="HTTP/1.1 200",
            ends=OBJECT.decode(),
            connections=max(1, CONNECTIONS // len(cpus.load)),
        )
        return as_demanded(testbed, cpus, demand, self.ports(cpus), dialogue)
