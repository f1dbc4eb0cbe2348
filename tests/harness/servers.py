"""Servers as their distributions ship them: how to configure, start, ask and end each, on loopback."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from fastsocket.build import LIBRARY
from fastsocket.processes import children
from tests.harness.apps import LOOPBACK
from tests.harness.cpus import CPUS
from tests.harness.load import Load
from tests.harness.waiting import WAIT_SECONDS, wait_until
from workloads.readiness import listening_inodes, watchers

APPS = Path(__file__).parent.parent / "server_apps"
PAGE = b"hello\n"
HTTP_REQUEST = b"GET / HTTP/1.0\r\n\r\n"
HTTP_ANSWER = re.compile(rb"HTTP/1\.[01] 200 OK\r\n(.*\r\n)+\r\n" + PAGE)
HTTP_ANSWER_WITHOUT_NEWLINE = re.compile(rb"HTTP/1\.[01] 200 OK\r\n(.*\r\n)+\r\n" + PAGE.strip())

NGINX_CONFIGURATION = """\
{main}
worker_processes {workers};
pid {directory}/nginx.pid;
error_log {directory}/error.log;
events {{ worker_connections 1024; {events} }}
http {{
    access_log off;
    client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy; fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi; scgi_temp_path {directory}/scgi;
    server {{
        listen 127.0.0.1:{port}{listen};
        default_type text/plain;
        location / {{ return 200 "hello\\n"; }}
    }}
}}
"""

HAPROXY_PAGE = """\
defaults
    mode http
    timeout client 10s
    timeout server 10s
    timeout connect 10s
frontend page
    http-request return status 200 content-type text/plain string "hello\\n"
    bind 127.0.0.1:{port}
"""
HAPROXY_CONFIGURATION = (
    """\
global
    nbthread 2
    stats socket {directory}/haproxy.sock mode 600 level admin expose-fd listeners
    hard-stop-after 10s
    {options}
"""
    + HAPROXY_PAGE
)

LIGHTTPD_CONFIGURATION = """\
server.document-root = "{directory}"
server.port = {port}
server.bind = "127.0.0.1"
server.max-worker = {workers}
server.errorlog = "{directory}/error.log"
index-file.names = ("index.txt")
mimetype.assign = (".txt" => "text/plain")
"""

APACHE_CONFIGURATION = """\
ServerRoot {directory}
ServerName localhost
PidFile {directory}/apache.pid
ErrorLog {directory}/error.log
LoadModule mpm_{mpm}_module {modules}/mod_mpm_{mpm}.so
LoadModule authz_core_module {modules}/mod_authz_core.so
LoadModule rewrite_module {modules}/mod_rewrite.so
User www-data
Group www-data
Listen 127.0.0.1:{port}
StartServers 2
{limits}
RewriteEngine on
RewriteRule ^ - [R=200]
ErrorDocument 200 "hello"
"""

H2O_CONFIGURATION = """\
num-threads: 2
user: root
listen:
  host: 127.0.0.1
  port: {port}
hosts:
  default:
    paths:
      /:
        file.dir: {pages}
        file.index: [index.txt]
"""


@dataclass(frozen=True)
class Server:
    """One server in one configuration. ``prepare`` writes what it needs into a directory and returns the command."""

    name: str
    prepare: Callable[[Path, int], list[str]]
    watchers: int  # epolls that hold a listener of its port once it is ready; 0 of a server that has no such epoll
    workers: int = 0  # processes that serve, if not the first one
    request: bytes = HTTP_REQUEST
    answer: re.Pattern = HTTP_ANSWER
    environment: dict[str, str] = field(default_factory=dict)
    end: signal.Signals = signal.SIGTERM
    end_status: int = 0
    pid_file: str = ""  # of a daemon


def nginx(
    name: str, main: str = "daemon off;", events: str = "", listen: str = "", workers: int = 2, pid_file: str = ""
) -> Server:
    """A master and workers; the strings go into the configuration."""

    def prepare(directory: Path, port: int) -> list[str]:
        configuration = directory / "nginx.conf"
        configuration.write_text(
            NGINX_CONFIGURATION.format(
                directory=directory, port=port, main=main, events=events, listen=listen, workers=workers
            )
        )
        # An upgrade runs argv[0] again, without looking along PATH.
        return [
            shutil.which("nginx") or "nginx",
            "-p",
            str(directory),
            "-c",
            str(configuration),
            "-e",
            str(directory / "error.log"),
        ]

    # With accept_mutex one worker watches at a time, and which one changes.
    watching = 0 if "accept_mutex on" in events else workers
    return Server(name, prepare, watchers=watching, workers=workers, pid_file=pid_file)


def haproxy(name: str, options: str = "", *arguments: str, **more) -> Server:
    """Two threads; ``options`` go into its global section."""

    def prepare(directory: Path, port: int) -> list[str]:
        configuration = directory / "haproxy.cfg"
        configuration.write_text(HAPROXY_CONFIGURATION.format(directory=directory, port=port, options=options))
        return ["haproxy", "-f", str(configuration), *arguments]

    return Server(name, prepare, watchers=2, **more)


def lighttpd(name: str, workers: int) -> Server:
    """A single process, or that many workers."""

    def prepare(directory: Path, port: int) -> list[str]:
        (directory / "index.txt").write_bytes(PAGE)
        configuration = directory / "lighttpd.conf"
        configuration.write_text(LIGHTTPD_CONFIGURATION.format(directory=directory, port=port, workers=workers))
        return ["lighttpd", "-D", "-f", str(configuration)]

    return Server(name, prepare, watchers=workers or 1, workers=workers)


def apache(mpm: str, limits: str) -> Server:
    """Two children, which may not read our files; ``limits`` go into its configuration."""

    def prepare(directory: Path, port: int) -> list[str]:
        configuration = directory / "apache.conf"
        text = APACHE_CONFIGURATION.format(
            directory=directory, port=port, mpm=mpm, limits=limits, modules="/usr/lib/apache2/modules"
        )
        configuration.write_text(text)
        return ["apache2", "-DFOREGROUND", "-f", str(configuration)]

    return Server(f"apache {mpm}", prepare, watchers=2, workers=2, answer=HTTP_ANSWER_WITHOUT_NEWLINE)


def _h2o(directory: Path, port: int) -> list[str]:
    configuration = directory / "h2o.conf"
    (directory / "index.txt").write_bytes(PAGE)
    configuration.write_text(H2O_CONFIGURATION.format(port=port, pages=directory))
    return ["h2o", "-c", str(configuration)]


def _redis(directory: Path, port: int) -> list[str]:
    return ["redis-server", "--bind", LOOPBACK, "--port", str(port), "--dir", str(directory), "--save", ""]


def _memcached(directory: Path, port: int) -> list[str]:
    return ["memcached", "-l", LOOPBACK, "-p", str(port), "-U", "0", "-t", "2", "-u", "root"]


def _gunicorn(directory: Path, port: int) -> list[str]:
    return [
        sys.executable,
        "-m",
        "gunicorn",
        "--workers",
        "2",
        "--bind",
        f"{LOOPBACK}:{port}",
        "--no-control-socket",
        "--chdir",
        str(APPS),
        "web:wsgi",
    ]


def uvicorn(directory: Path, port: int, workers: int = 1) -> list[str]:
    return [
        sys.executable,
        "-m",
        "uvicorn",
        "--workers",
        str(workers),
        "--port",
        str(port),
        "--app-dir",
        str(APPS),
        "--no-access-log",
        "web:asgi",
    ]


def _app(runtime: str, program: str, *arguments: str) -> Callable[[Path, int], list[str]]:
    return lambda directory, port: [runtime, str(APPS / program), *arguments, str(port)]


NGINX_WORKERS = nginx("nginx")
NGINX_ONE_WORKER = nginx("nginx, one worker", workers=1)
NGINX_REUSEPORT = nginx("nginx reuseport", listen=" reuseport")
NGINX_ACCEPT_MUTEX = nginx("nginx accept_mutex", events="accept_mutex on;")
NGINX_DAEMON = nginx("nginx daemon", main="", pid_file="nginx.pid")
NGINX_DAEMON_KEEPING_PRELOAD = nginx("nginx daemon, env LD_PRELOAD", main="env LD_PRELOAD;", pid_file="nginx.pid")
HAPROXY_THREADS = haproxy("haproxy threads", "", "-db", end_status=-signal.SIGTERM)
HAPROXY_PINNED = haproxy(
    "haproxy pinned threads", f"cpu-map auto:1/1-2 {' '.join(map(str, CPUS))}", "-db", end_status=-signal.SIGTERM
)
HAPROXY_MASTER_WORKER = haproxy("haproxy master-worker", "", "-W", workers=1)
REDIS = Server("redis", _redis, watchers=1, request=b"PING\r\nQUIT\r\n", answer=re.compile(rb"\+PONG\r\n\+OK\r\n"))
MEMCACHED = Server(
    "memcached", _memcached, watchers=1, request=b"version\r\nquit\r\n", answer=re.compile(rb"VERSION [0-9.]+\r\n")
)
LIGHTTPD = lighttpd("lighttpd", 0)
LIGHTTPD_WORKERS = lighttpd("lighttpd workers", 2)
THREADED_MPM = "ThreadsPerChild 25\nMinSpareThreads 25\nMaxSpareThreads 75\nMaxRequestWorkers 50\nServerLimit 2"
APACHE_EVENT = apache("event", THREADED_MPM)
APACHE_WORKER = apache("worker", THREADED_MPM)
APACHE_PREFORK = apache("prefork", "MinSpareServers 2\nMaxSpareServers 2\nServerLimit 2\nMaxRequestWorkers 2")
H2O = Server("h2o", _h2o, watchers=2)
ASYNCIO = Server("asyncio", _app(sys.executable, "asyncio_server.py"), watchers=1)
THREADING = Server("ThreadingTCPServer", _app(sys.executable, "socketserver_server.py", "threading"), watchers=0)
FORKING = Server("ForkingTCPServer", _app(sys.executable, "socketserver_server.py", "forking"), watchers=0)
GUNICORN = Server("gunicorn", _gunicorn, watchers=0, workers=2)
UVICORN = Server("uvicorn", partial(uvicorn, workers=2), watchers=2)
NODE_ROUND_ROBIN = Server("node cluster", _app("node", "cluster.js"), watchers=1, workers=2)
NODE_SHARED = Server(
    "node cluster, shared handle",
    _app("node", "cluster.js"),
    watchers=2,
    workers=2,
    environment={"NODE_CLUSTER_SCHED_POLICY": "none"},
)


def is_running(pid: int) -> bool:
    """A zombie is not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


class Served:
    """A server that runs, with the library or without it. ``process`` is what was started last."""

    def __init__(self, server: Server, directory: Path, preload: bool):
        self.server, self.directory, self.port = server, directory, free_port()
        self._command = server.prepare(directory, self.port)
        self._environment = {**os.environ, **server.environment, **({"LD_PRELOAD": str(LIBRARY)} if preload else {})}
        self._started: list[subprocess.Popen] = []

    def start(self, *arguments: str) -> None:
        """Once, or again next to the first one, with more arguments."""
        with open(self.directory / "stderr.log", "ab") as log:
            self._started.append(
                subprocess.Popen(
                    [*self._command, *arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=self._environment,
                    start_new_session=True,
                )
            )

    @property
    def process(self) -> subprocess.Popen:
        return self._started[-1]

    @property
    def pid(self) -> int:
        """Of its first process: the master, if there are workers."""
        return int((self.directory / self.server.pid_file).read_text()) if self.server.pid_file else self.process.pid

    def workers(self) -> list[int]:
        """The processes that serve."""
        return children(self.pid) if self.server.workers else [self.pid]

    def is_ready(self) -> bool:
        """All its workers are there and watch, and a request is answered."""
        try:
            complete = len(self.workers()) == (self.server.workers or 1)
            return complete and watchers(self.pid, self.port) >= self.server.watchers and self.answers()
        except (FileNotFoundError, ValueError):  # the pid file is not there, or not written yet
            return False

    def answers(self) -> bool:
        try:
            with socket.create_connection((LOOPBACK, self.port), timeout=WAIT_SECONDS) as connection:
                connection.sendall(self.server.request)
                answer = b"".join(iter(lambda: connection.recv(4096), b""))
        except OSError:
            return False
        return bool(self.server.answer.fullmatch(answer))

    def log(self) -> str:
        """All that it wrote; some servers send stderr into their own log."""
        return "".join(path.read_text(errors="replace") for path in sorted(self.directory.glob("*.log")))

    def load(self, cpus: list[int], number: int | None = None) -> Load:
        return Load(self.port, self.server.request, self.server.answer, cpus, number)

    def members(self) -> list[int]:
        """All its processes, also those that its master no longer knows: their stderr is in its directory."""
        return [int(entry.name) for entry in Path("/proc").glob("[0-9]*") if self._logs_here(entry)]

    def _logs_here(self, process: Path) -> bool:
        try:
            return Path(os.readlink(process / "fd" / "2")).parent == self.directory
        except OSError:  # it has ended, or is not ours to look into
            return False

    def end(self) -> None:
        """By its signal; it has to end with its status, and to leave no process and no listener."""
        os.kill(self.pid, self.server.end)
        if not self.server.pid_file:
            assert self.process.wait(WAIT_SECONDS) == self.server.end_status
        wait_until(lambda: not self.members(), f"{self.server.name} leaves no process")
        assert not listening_inodes(self.port)

    def kill(self) -> None:
        """Whatever is left of it. More than once, because a master may be starting a worker."""
        while members := self.members():
            for pid in members:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        for process in self._started:
            process.wait()


@contextmanager
def served(server: Server, directory: Path, preload: bool):
    """A server on loopback, and ready; ended cleanly if all went well, and in any case."""
    one = Served(server, directory, preload)
    try:
        one.start()
        wait_until(one.is_ready, f"{server.name} is ready")
        yield one
        one.end()
    except AssertionError as error:
        error.add_note(f"{server.name} says: {one.log()}")
        raise
    finally:
        one.kill()


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind((LOOPBACK, 0))
        return probe.getsockname()[1]
