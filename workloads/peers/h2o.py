"""h2o: a web server with a thread per core, which share one listener, a connection per request, a 64-byte file."""

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

CONFIGURATION = """\
num-threads: {threads}
max-connections: 8000
user: root
listen:
  host: 0.0.0.0
  port: {port}
hosts:
  default:
    paths:
      /:
        file.dir: {root}
        file.index: [object.txt]
"""


class H2O(Workload):
    """Threads can't be pinned by its configuration: they share the server's CPUs, and libfsocket.so gives each one."""

    name = "h2o"
    binaries = {"h2o": ["--version"], "wrk": ["--version"]}
    packages = {"h2o": "h2o", "wrk": "wrk"}
    lacks = {"latest": "h2o 2.2 opens no SO_REUSEPORT listener per thread"}

    def ports(self, cpus: Cpus) -> range:
        return range(http.PORT, http.PORT + 1)

    @contextmanager
    def serve(self, testbed: Testbed, variant: Variant, cpus: Cpus, directory: Path) -> Iterator[list[int]]:
        root, configuration = directory / "root", directory / "h2o.conf"
        root.mkdir()
        (root / "object.txt").write_bytes(http.OBJECT)
        configuration.write_text(CONFIGURATION.format(root=root, port=http.PORT, threads=len(cpus.server)))
        command = testbed.command(testbed.server, cpus.server, ["h2o", "-c", str(configuration)])

        def is_ready(pid: int) -> bool:
            return watchers(pid, http.PORT) == len(cpus.server) and http.answers(testbed.client, testbed.server.IP())

        with started(self.name, command, directory, is_ready, env=variant.environment()) as pid:
            yield [pid]

    def load(self, testbed: Testbed, cpus: Cpus, demand: Demand) -> Load:
        return web_load(testbed, cpus, demand)
