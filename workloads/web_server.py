"""What web servers and proxies have in common: their port, their load, and when their start is complete."""

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
    """A server on port 80, with a worker on each CPU. Each worker watches the listener in an epoll of its own."""

    loader = "wrk"

    def ports(self, cpus: Cpus) -> range:
        return range(http.PORT, http.PORT + 1)

    @contextmanager
    def started(
        self, testbed: Testbed, variant: Variant, cpus: Cpus, directory: Path, argv: list[str]
    ) -> Iterator[list[int]]:
        """Run the server on the testbed's host ``server``. Yields its process id once it answers.

        Raises WorkloadError.
        """
        command = testbed.command(testbed.server, cpus.server, argv)

        def is_ready(pid: int) -> bool:
            return watchers(pid, http.PORT) == len(cpus.server) and http.answers(testbed.client, testbed.server.IP())

        with started(self.name, command, directory, is_ready, env=variant.environment()) as pid:
            yield [pid]

    def load(self, testbed: Testbed, cpus: Cpus, demand: Demand) -> Load:
        return web_load(testbed, cpus, demand)
