"""lighttpd: a web server whose workers share one listener, a connection per request, a 64-byte file."""

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
server.document-root = "{directory}/root"
server.port = {port}
server.bind = "0.0.0.0"
server.max-worker = {workers}
server.max-fds = 16384
server.listen-backlog = 65535
server.max-keep-alive-requests = 0
server.errorlog = "{directory}/error.log"
index-file.names = ("object.txt")
mimetype.assign = (".txt" => "text/plain")
"""


class Lighttpd(Workload):
    """Workers can't be pinned by its configuration: they share the server's CPUs, and libfsocket.so gives each one."""

    name = "lighttpd"
    binaries = {"lighttpd": ["-v"], "wrk": ["--version"]}
    packages = {"lighttpd": "lighttpd", "wrk": "wrk"}
    lacks = {"latest": "lighttpd opens no SO_REUSEPORT listener per worker"}

    def ports(self, cpus: Cpus) -> range:
        return range(http.PORT, http.PORT + 1)

    @contextmanager
    def serve(self, testbed: Testbed, variant: Variant, cpus: Cpus, directory: Path) -> Iterator[list[int]]:
        root, configuration = directory / "root", directory / "lighttpd.conf"
        root.mkdir()
        (root / "object.txt").write_bytes(http.OBJECT)
        configuration.write_text(CONFIGURATION.format(directory=directory, port=http.PORT, workers=len(cpus.server)))
        command = testbed.command(testbed.server, cpus.server, ["lighttpd", "-D", "-f", str(configuration)])

        def is_ready(pid: int) -> bool:
            return watchers(pid, http.PORT) == len(cpus.server) and http.answers(testbed.client, testbed.server.IP())

        with started("lighttpd", command, directory, is_ready, env=variant.environment()) as pid:
            yield [pid]

    def load(self, testbed: Testbed, cpus: Cpus, demand: Demand) -> Load:
        return web_load(testbed, cpus, demand)
