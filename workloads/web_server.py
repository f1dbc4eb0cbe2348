"""What web servers and proxies have in common: a port, a load of connections, and a start that ends when they wait."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from topologies.testbed import Testbed
from workloads import http
from workloads.load import Demand, Load
from workloads.process import started
from workloads.readiness import watchers
from workloads.variants import Variant
from workloads.web_load import web_load
from workloads.workload import Cpus, Workload


class WebServer(Workload):
    """On port 80, with a worker for each of the server's CPUs that watches the listener in an epoll of its own."""

    loader = "wrk"

    def ports(self, cpus: Cpus) -> range:
        return range(http.PORT, http.PORT + 1)

    @contextmanager
    def started(
        self, testbed: Testbed, variant: Variant, cpus: Cpus, directory: Path, argv: list[str]
    ) -> Iterator[list[int]]:
        """Run it on the testbed's host ``server``; yields its process id when it answers. Raises WorkloadError."""
        command = testbed.command(testbed.server, cpus.server, argv)

        def is_ready(pid: int) -> bool:
            return watchers(pid, http.PORT) == len(cpus.server) and http.answers(testbed.client, testbed.server.IP())

        with started(self.name, command, directory, is_ready, env=variant.environment()) as pid:
            yield [pid]

    def load(self, testbed: Testbed, cpus: Cpus, demand: Demand) -> Load:
        return web_load(testbed, cpus, demand)
