"""nginx as a proxy: one connection per request from the client; to the backend a new one each time, or kept ones.

Kept connections are nginx's own default since 1.29.7. Both cases are configured in full here, so that all versions of
nginx behave alike.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from topologies.proxy import Proxy
from topologies.testbed import Testbed
from workloads import http
from workloads.haproxy import backend
from workloads.nginx import Site, nginx
from workloads.variants import Variant
from workloads.web_server import WebServer
from workloads.workload import Cpus

PASS = "proxy_pass http://backend; proxy_next_upstream off; "  # retries are off, so that errors are seen
NEW = PASS + "proxy_http_version 1.0; proxy_set_header Connection close;"
KEPT = PASS + 'proxy_http_version 1.1; proxy_set_header Connection "";'
MOST_KEPT = 256  # kept connections of each worker: more than wrk opens
KEPT_SECONDS = 60  # how long the backend keeps a connection; the backend is the side that closes it


class NginxProxy(WebServer):
    """nginx as a proxy, with a worker per core. The backend is nginx, too, on the CPUs of the load."""

    binaries = {"nginx": ["-v"], "wrk": ["--version"]}
    packages = {"nginx": "nginx", "wrk": "wrk"}
    topology = Proxy

    def __init__(self, name: str, kept: bool):
        self.name = name
        self._kept = kept

    @contextmanager
    def serve(self, testbed: Testbed, variant: Variant, cpus: Cpus, directory: Path) -> Iterator[list[int]]:
        kept = f"keepalive {MOST_KEPT}; " if self._kept else ""
        upstream = f"upstream backend {{ server {testbed.backend.IP()}:{http.PORT}; {kept}}}"
        proxy = Site(answer=KEPT if self._kept else NEW, upstream=upstream)
        behind = Site(kept_seconds=KEPT_SECONDS if self._kept else 0)
        hosts, own_reuseport = (testbed.server, testbed.client), variant.own_reuseport
        with (
            backend(testbed, cpus, directory, behind),
            nginx(testbed, *hosts, cpus.server, directory, own_reuseport, variant.environment(), site=proxy) as pid,
        ):
            yield [pid]
