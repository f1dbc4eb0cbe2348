"""nginx, the slides' web server: a worker per core, one connection per request, and a 64-byte object."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mininet.node import Host

from topologies.client import Client
from topologies.testbed import Testbed
from workloads import http
from workloads.process import started
from workloads.readiness import watchers
from workloads.variants import Variant
from workloads.web_server import WebServer
from workloads.workload import Cpus

# accept_mutex is off: the README of the original Fastsocket demands that, and it is nginx's default since 1.11.3.
CONFIGURATION = """\
worker_processes {workers};
worker_cpu_affinity {affinity};
worker_rlimit_nofile {connections};
pid {directory}/nginx.pid;
error_log {directory}/error.log;
{main}
events {{ worker_connections {connections}; accept_mutex off; }}
http {{
    access_log off;
    keepalive_timeout {kept_seconds};
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    {upstream}
    server {{
        listen {port} backlog=65535{listen_options};
        listen [::]:{port} ipv6only=on backlog=65535{listen_options};
        default_type text/plain;
        location / {{ {answer} }}
    }}
}}
"""


@dataclass(frozen=True)
class Site:
    """What nginx answers, and how long it keeps a connection open for another request."""

    answer: str = 'return 200 "{}";'.format(http.OBJECT.decode().replace("\n", "\\n"))
    upstream: str = ""
    main: str = ""  # configuration outside of http
    kept_seconds: int = 0


OBJECT = Site()


class Nginx(WebServer):
    """nginx that serves the object from memory, so that a trial measures sockets and not files."""

    name = program = "nginx"
    binaries = {"nginx": ["-v"], "wrk": ["--version"]}
    packages = {"nginx": "nginx", "wrk": "wrk"}
    site = OBJECT

    @contextmanager
    def serve(self, testbed: Testbed, variant: Variant, cpus: Cpus, directory: Path) -> Iterator[list[int]]:
        with nginx(
            testbed,
            testbed.server,
            testbed.client,
            cpus.server,
            directory,
            variant.own_reuseport,
            variant.environment(),
            self.program,
            self.site,
        ) as pid:
            yield [pid]


@contextmanager
def nginx(
    testbed: Testbed,
    host: Host,
    client: Client,
    cpus: list[int],
    directory: Path,
    own_reuseport: bool,
    environment: Mapping[str, str] | None = None,
    program: str = "nginx",
    site: Site = OBJECT,
) -> Iterator[int]:
    """Run nginx on a host of a testbed, with a worker pinned to each CPU. Yields its process id once it answers."""
    configuration = directory / "nginx.conf"
    configuration.write_text(
        CONFIGURATION.format(
            workers=len(cpus),
            affinity=_affinity_masks(cpus),
            directory=directory,
            port=http.PORT,
            connections=16384,
            listen_options=" reuseport" if own_reuseport else "",
            **vars(site),
        )
    )
    files = ["-p", str(directory), "-c", str(configuration), "-e", str(directory / "error.log")]
    command = testbed.command(host, cpus, [program, *files, "-g", "daemon off;"])

    def is_ready(pid: int) -> bool:
        return watchers(pid, http.PORT) == len(cpus) and http.answers(client, host.IP())

    with started("nginx", command, directory, is_ready, env=environment) as pid:
        yield pid


def _affinity_masks(cpus: list[int]) -> str:
    """The CPUs of the workers as nginx takes them: a binary number for each worker, with CPU 0 on the right."""
    return " ".join(format(1 << cpu, "b") for cpu in cpus)
