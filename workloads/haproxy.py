"""HAProxy: the slides' own subject, an HTTP proxy; a connection per request from the client and one to the backend."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from topologies.proxy import Proxy
from topologies.testbed import Testbed
from workloads import http, limits
from workloads.load import Demand, Load
from workloads.nginx import nginx
from workloads.process import started
from workloads.readiness import watchers
from workloads.variants import Variant
from workloads.web_load import web_load
from workloads.workload import Cpus, Workload

# By default HAProxy hands accepted connections from thread to thread, away from the core that they came in on.
# multi-queue is off for every variant, so that variants differ in nothing else. Without retries, errors are seen.
CONFIGURATION = """\
global
    nbthread {threads}
    {cpu_map}
    maxconn 8000
    tune.listener.multi-queue off
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


class HAProxy(Workload):
    """A thread per core, keep-alive off on both sides. The backend is nginx, on the CPUs of the load."""

    name = "haproxy"
    binaries = {"haproxy": ["-v"], "nginx": ["-v"], "wrk": ["--version"]}
    packages = {"haproxy": "haproxy", "nginx": "nginx", "wrk": "wrk"}
    topology = Proxy

    def ports(self, cpus: Cpus) -> range:
        return range(http.PORT, http.PORT + 1)

    @contextmanager
    def serve(self, testbed: Testbed, variant: Variant, cpus: Cpus, directory: Path) -> Iterator[list[int]]:
        configuration = directory / "haproxy.cfg"
        answer = limits.read().answer_seconds
        configuration.write_text(
            CONFIGURATION.format(
                threads=len(cpus.server),
                cpu_map=_cpu_map(cpus.server),
                port=http.PORT,
                backend=testbed.backend.IP(),
                answer=answer,
                idle=5 * answer,
                bind_options=" shards by-thread" if variant.own_reuseport else "",
            )
        )
        command = testbed.command(testbed.server, cpus.server, ["haproxy", "-db", "-f", str(configuration)])

        def is_ready(pid: int) -> bool:
            return watchers(pid, http.PORT) == len(cpus.server) and http.answers(testbed.client, testbed.server.IP())

        with (
            self._backend(testbed, cpus, directory),
            started("haproxy", command, directory, is_ready, env=variant.environment()) as pid,
        ):
            yield [pid]

    @contextmanager
    def _backend(self, testbed: Testbed, cpus: Cpus, directory: Path) -> Iterator[None]:
        """The same for every variant: a listener of its own for each worker."""
        own = directory / "backend"
        own.mkdir()
        with nginx(testbed, testbed.backend, testbed.server, cpus.load, own, own_reuseport=True):
            yield

    def load(self, testbed: Testbed, cpus: Cpus, demand: Demand) -> Load:
        return web_load(testbed, cpus, demand)


def _cpu_map(cpus: list[int]) -> str:
    """A thread to each CPU. HAProxy 2.6 silently ignores a line per thread, such as "cpu-map 1/1 0"."""
    return f"cpu-map auto:1/1-{len(cpus)} {' '.join(map(str, cpus))}"
