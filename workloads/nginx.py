"""nginx: the slides' web server, a worker per core, one connection per request, a 64-byte object."""

import os
import shutil
import socket
import subprocess
from contextlib import contextmanager
from pathlib import Path

from topologies.namespace import inside
from topologies.testbed import Testbed
from workloads.process import WorkloadError, children, running, until
from workloads.variants import Variant

OBJECT = b"x" * 63 + b"\n"
START_SECONDS = 10
ERROR_LINES_SHOWN = 5

# accept_mutex is off, as the original's README demands and nginx has had it by default since 1.11.3.
CONFIGURATION = """\
worker_processes {workers};
worker_cpu_affinity {affinity};
worker_rlimit_nofile {connections};
pid {directory}/nginx.pid;
error_log {directory}/error.log;
events {{ worker_connections {connections}; accept_mutex off; }}
http {{
    access_log off;
    keepalive_timeout 0;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    server {{
        listen {port} backlog=65535{listen_options};
        listen [::]:{port} ipv6only=on backlog=65535{listen_options};
        default_type text/plain;
        location / {{ return 200 "{object}"; }}
    }}
}}
"""


def _affinity_masks(cpus: list[int]) -> str:
    """nginx's form of a CPU set per worker: a binary number, CPU 0 on the right."""
    return " ".join(format(1 << cpu, "b") for cpu in cpus)


def _is_serving(pid: int) -> bool:
    """Whether a worker watches the channel to its master, the last thing it does before it waits for connections."""
    try:
        watched = {os.readlink(f"/proc/{pid}/fd/{number}") for number in _watched_descriptors(pid)}
        unix_sockets = {f"socket:[{line.split()[6]}]" for line in _lines(f"/proc/{pid}/net/unix")[1:]}
    except FileNotFoundError:
        return False
    return bool(watched & unix_sockets)


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines()


def _watched_descriptors(pid: int) -> list[str]:
    """What the process has in its epolls (proc(5), fdinfo: "tfd: NUMBER events: …")."""
    epolls = [entry.name for entry in Path(f"/proc/{pid}/fd").iterdir()
              if os.readlink(entry) == "anon_inode:[eventpoll]"]
    lines = [line for number in epolls for line in _lines(f"/proc/{pid}/fdinfo/{number}")]
    return [line.split()[1] for line in lines if line.startswith("tfd:")]


class Nginx:
    """A server to measure. ``metric`` names what a trial counts; ``port`` is where it listens, on every address."""

    name = "nginx"
    binary = "nginx"
    metric = "cps"
    port = 80

    def version(self) -> str:
        """Raises WorkloadError when nginx is not installed."""
        path = shutil.which(self.binary)
        if not path:
            raise WorkloadError("nginx is not installed: apt-get install nginx")
        said = subprocess.run([path, "-v"], capture_output=True, text=True)
        return said.stderr.strip().rpartition("/")[2]

    @contextmanager
    def serve(self, testbed: Testbed, variant: Variant, cpus: list[int], directory: Path):
        """Run nginx on the testbed's server host, a worker pinned to each CPU; yields its process id when it answers.

        Raises WorkloadError with nginx's own error log when it does not start.
        """
        configuration = self._configure(variant, cpus, directory)
        command = testbed.command(testbed.server, cpus, [
            self.binary, "-p", str(directory), "-c", str(configuration), "-e", str(directory / "error.log"),
            "-g", "daemon off;"])
        with open(directory / "stderr.log", "wb") as stderr, \
                running(command, env=variant.environment(), stdout=stderr, stderr=stderr) as process:
            if not until(lambda: self._is_ready(testbed, process.pid, len(cpus)), process, START_SECONDS):
                raise WorkloadError(f"nginx does not start: {self._last_words(directory)}")
            yield process.pid

    def _configure(self, variant: Variant, cpus: list[int], directory: Path) -> Path:
        path = directory / "nginx.conf"
        path.write_text(CONFIGURATION.format(
            workers=len(cpus), affinity=_affinity_masks(cpus), directory=directory, port=self.port, connections=16384,
            object=OBJECT.decode().replace("\n", "\\n"), listen_options=" reuseport" if variant.own_reuseport else ""))
        return path

    def _is_ready(self, testbed: Testbed, pid: int, workers: int) -> bool:
        started = children(pid)
        return len(started) == workers and all(map(_is_serving, started)) and self._answers(testbed)

    def _answers(self, testbed: Testbed) -> bool:
        try:
            with inside(testbed.client):
                connection = socket.create_connection((testbed.server.IP(), self.port), timeout=1)
            with connection:
                connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
                return b"".join(iter(lambda: connection.recv(4096), b"")).endswith(OBJECT)
        except OSError:
            return False

    def _last_words(self, directory: Path) -> str:
        logs = [directory / "error.log", directory / "stderr.log"]
        lines = [line for log in logs if log.exists() for line in log.read_text(errors="replace").splitlines()]
        return " | ".join(dict.fromkeys(lines[-ERROR_LINES_SHOWN:])) or "it said nothing"
