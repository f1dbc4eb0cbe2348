"""h2o: a web server with a thread per core, which share one listener, a connection per request, a 64-byte file."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from topologies.testbed import Testbed
from workloads import http
from workloads.variants import Variant
from workloads.web_server import WebServer
from workloads.workload import Cpus

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


class H2O(WebServer):
    """h2o's configuration cannot pin threads. They share the server's CPUs; libfsocket.so pins each to one."""

    name = "h2o"
    binaries = {"h2o": ["--version"], "wrk": ["--version"]}
    packages = {"h2o": "h2o", "wrk": "wrk"}
    lacks = {"latest": "h2o 2.2 opens no SO_REUSEPORT listener per thread"}

    @contextmanager
    def serve(self, testbed: Testbed, variant: Variant, cpus: Cpus, directory: Path) -> Iterator[list[int]]:
        root, configuration = directory / "root", directory / "h2o.conf"
        root.mkdir()
        (root / "object.txt").write_bytes(http.OBJECT)
        configuration.write_text(CONFIGURATION.format(root=root, port=http.PORT, threads=len(cpus.server)))
        with self.started(testbed, variant, cpus, directory, ["h2o", "-c", str(configuration)]) as pids:
            yield pids
