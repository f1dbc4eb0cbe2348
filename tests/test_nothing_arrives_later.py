"""TLS, HTTP/2, large files and WebSockets of real servers: nothing arrives later with fewer packets."""

import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from fastsocket import shared_memory
from tests.harness.dialogues import connected, http2, https, websocket
from tests.harness.patience import patient
from tests.harness.servers import HAPROXY_PAGE, HTTP_REQUEST, LOOPBACK, PAGE, Served, Server, served, uvicorn

TO_LEARN = 60  # connections after which the library knows a listener's habit
TRIES = 10  # on a busy machine any of them may be late
LATE_SECONDS = patient(0.001)
LARGE = bytes(range(250)) * 4000

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(60),
    pytest.mark.privileged,
    pytest.mark.usefixtures("own_network"),
]

NGINX_CONFIGURATION = """\
daemon off;
user root;
worker_processes 1;
pid {directory}/nginx.pid;
error_log {directory}/error.log;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    sendfile on;
    root {directory};
    ssl_certificate {directory}/both.pem;
    ssl_certificate_key {directory}/both.pem;
    server {{
        listen {host}:{port};
        listen {host}:{tls_port} ssl http2;
        location = / {{ return 200 "hello\\n"; }}
    }}
}}
"""

HAPROXY_CONFIGURATION = HAPROXY_PAGE + "    bind {host}:{tls_port} ssl crt {directory}/both.pem alpn h2,http/1.1\n"


def configured(template: str, directory: Path, port: int) -> str:
    """TLS is on the next port. Makes a key and its certificate."""
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", "-"]
    names = ["-subj", "/CN=localhost", "-days", "2", "-out", "-"]
    made = subprocess.run(["openssl", "req", "-x509", *key, *names], capture_output=True, check=True)
    (directory / "both.pem").write_bytes(made.stdout)
    (directory / "large").write_bytes(LARGE)
    (directory / "configuration").write_text(
        template.format(directory=directory, host=LOOPBACK, port=port, tls_port=port + 1)
    )
    return str(directory / "configuration")


def nginx(directory: Path, port: int) -> list[str]:
    return ["nginx", "-p", str(directory), "-e", "error.log", "-c", configured(NGINX_CONFIGURATION, directory, port)]


def haproxy(directory: Path, port: int) -> list[str]:
    return ["haproxy", "-db", "-f", configured(HAPROXY_CONFIGURATION, directory, port)]


def on_tls_port(dialogue: Callable[..., bytes], *arguments: str) -> Callable[[int], bytes]:
    return lambda port: dialogue(port + 1, *arguments)


Talk = tuple[Callable[[int], bytes], bytes]  # and what it returns
SHORT: Talk = on_tls_port(https), PAGE
HTTP2: Talk = on_tls_port(http2), 5 * PAGE
CLEAR_HTTP2: Talk = partial(http2, over_tls=False), 5 * PAGE
LARGE_FILE: Talk = on_tls_port(https, "/large"), LARGE
SERVERS = {
    "nginx": (Server("nginx", nginx, watchers=1, workers=1), [SHORT, HTTP2, LARGE_FILE]),
    "HAProxy": (
        Server("HAProxy", haproxy, watchers=1, end_status=-15),
        [SHORT, HTTP2, CLEAR_HTTP2],
    ),
    "uvicorn": (Server("uvicorn", uvicorn, watchers=1, end_status=-15), [(websocket, b"01234")]),
}


def learn(port: int) -> None:
    """A server answers a request without TLS and closes in one turn, even to say that it wants TLS."""
    for _ in range(TO_LEARN):
        with suppress(ConnectionError), connected(port) as connection:
            connection.sendall(HTTP_REQUEST)
            while connection.recv(4096):
                pass


def held(one: Served) -> int:
    return sum(cpu.answers_with_fin + cpu.answers_alone for cpu in shared_memory.counters(one.pid))


def seconds(one: Served, talk: Callable[[int], bytes], expected: bytes) -> float:
    began = time.monotonic()
    assert talk(one.port) == expected
    return time.monotonic() - began


@pytest.mark.needs("openssl")
@pytest.mark.parametrize("server, talks", SERVERS.values(), ids=SERVERS)
def test_nothing_arrives_later(server, talks, tmp_path, monkeypatch):
    """A listener that is known for short connections gets others, and holds what they write first."""
    for part in ("ANSWER_WITH_FIN", "DELAYED_ACK"):
        monkeypatch.setenv(f"FSOCKET_{part}", "on")
    folders = [tmp_path / "with", tmp_path / "without"]
    for folder in folders:
        folder.mkdir()
    with served(server, folders[0], preload=True) as ours, served(server, folders[1], preload=False) as without:
        for port in (ours.port, ours.port + 1):
            learn(port)
        before = held(ours)
        for talk, expected in talks:
            later = [seconds(ours, talk, expected) - seconds(without, talk, expected) for _ in range(TRIES)]
            assert min(later) < LATE_SECONDS and sorted(later)[TRIES // 2] < patient(0.02), later
        assert held(ours) > before or server.name == "uvicorn"  # which closes a turn later, so that nothing is held
