"""lighttpd: a web server whose workers share one listener, a connection per request, a 64-byte file."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from topologies.testbed import Testbed
from workloads import http
from workloads.variants import Variant
from workloads.web_server import WebServer
from workloads.workload import Cpus

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


class Lighttpd(WebServer):
    """lighttpd's configuration cannot pin workers. They share the server's CPUs; libfsocket.so pins each to one."""

    name = "lighttpd"
    binaries = {"lighttpd": ["-v"], "wrk": ["--version"]}
    packages = {"lighttpd": "lighttpd", "wrk": "wrk"}
    lacks = {"latest": "lighttpd opens no SO_REUSEPORT listener per worker"}

    @contextmanager
    def serve(self, testbed: Testbed, variant: Variant, cpus: Cpus, directory: Path) -> Iterator[list[int]]:
        root, configuration = directory / "root", directory / "lighttpd.conf"
        root.mkdir()
        (root / "object.txt").write_bytes(http.OBJECT)
        configuration.write_text(CONFIGURATION.format(directory=directory, port=http.PORT, workers=len(cpus.server)))
        with self.started(testbed, variant, cpus, directory, ["lighttpd", "-D", "-f", str(configuration)]) as pids:
            yield pids
