"""HAProxy, the slides' HTTP proxy: one connection per request from the client, and one to the backend."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from topologies.proxy import Proxy
from topologies.testbed import Testbed
from workloads import http, limits
from workloads.nginx import OBJECT, Site, nginx
from workloads.variants import Variant
from workloads.web_server import WebServer
from workloads.workload import Cpus

# By default (multi-queue) HAProxy hands accepted connections from thread to thread, away from the core that they came
# in on. multi-queue is off except in the variants that are about it, so that variants differ in nothing else. Retries
# are off, so that errors are seen.
CONFIGURATION = """\
global
    nbthread {threads}
    {cpu_map}
    maxconn 8000
    tune.listener.multi-queue {multi_queue}
    {groups}
defaults
    mode http
    option httpclose
    retries 0
    timeout connect {answer}s
    timeout client {idle}s
    timeout server {idle}s
frontend clients
    bind 0.0.0.0:{port} backlog 65535{bind_options}
    bind :::{port} v6only backlog 65535{bind_options}
    default_backend servers
backend servers
    server backend {backend}:{port}
"""


class HAProxy(WebServer):
    """HAProxy with a thread per core, and keep-alive off on both sides. The backend is nginx, on the load's CPUs."""

    name = program = "haproxy"
    binaries = {"haproxy": ["-v"], "nginx": ["-v"], "wrk": ["--version"]}
    packages = {"haproxy": "haproxy", "nginx": "nginx", "wrk": "wrk"}
    topology = Proxy
    ways = {"multi-queue": "on"}  # the value of tune.listener.multi-queue

    @contextmanager
    def serve(self, testbed: Testbed, variant: Variant, cpus: Cpus, directory: Path) -> Iterator[list[int]]:
        configuration = directory / "haproxy.cfg"
        answer = limits.read().answer_seconds
        configuration.write_text(
            CONFIGURATION.format(
                threads=len(cpus.server),
                multi_queue=self.ways.get(variant.way, "off"),
                **_groups(cpus.server, 2 if variant.way == "by-group" and len(cpus.server) > 1 else 1),
                port=http.PORT,
                backend=testbed.backend.IP(),
                answer=answer,
                idle=5 * answer,
                bind_options=_shards(variant),
            )
        )
        argv = [self.program, "-db", "-f", str(configuration)]
        with backend(testbed, cpus, directory), self.started(testbed, variant, cpus, directory, argv) as pids:
            yield pids


@contextmanager
def backend(testbed: Testbed, cpus: Cpus, directory: Path, site: Site = OBJECT) -> Iterator[None]:
    """Run the backend of a proxy, an nginx. It is the same for every variant: each worker has a listener of its own."""
    own = directory / "backend"
    own.mkdir()
    with nginx(testbed, testbed.backend, testbed.server, cpus.load, own, own_reuseport=True, site=site):
        yield


def _shards(variant: Variant) -> str:
    if variant.way == "by-group":
        return " shards by-group"
    return " shards by-thread" if variant.own_reuseport else ""


def _groups(cpus: list[int], number: int) -> dict[str, str]:
    """The lines of HAProxy's configuration for groups of threads, with a thread on each CPU. number: of groups.

    A line covers a whole group, because HAProxy 2.6 silently ignores a line per thread, such as "cpu-map 1/1 0".
    """
    half = -(-len(cpus) // number)
    parts = [cpus[first : first + half] for first in range(0, len(cpus), half)]
    lines = [f"cpu-map auto:{group}/1-{len(part)} {' '.join(map(str, part))}" for group, part in enumerate(parts, 1)]
    return {"cpu_map": "\n    ".join(lines), "groups": f"thread-groups {number}" if number > 1 else ""}
