"""libfsocket_apps/two_workers.c: a server in C with a worker on each of two CPUs."""

import socket
from collections.abc import Sequence
from contextlib import contextmanager

from tests.harness.apps import LOOPBACK, App
from tests.harness.cpus import CPUS
from tests.harness.patience import patient
from tests.libfsocket_apps.loopback import on_cpus

REQUESTS = 20


@contextmanager
def two_workers(program: list[str], environment: dict[str, str], launcher: Sequence[str] = (), log: str | None = ""):
    with on_cpus(CPUS), App(program, environment, log, launcher) as app:
        app.port, _, _ = app.read(), app.read(), app.read()
        yield app


def request(port: int, cpu: int) -> bytes:
    with on_cpus({cpu}), socket.create_connection((LOOPBACK, port), patient(10)) as client:
        return client.recv(16)


def ask_all(app: App) -> None:
    for cpu in CPUS * REQUESTS:
        assert request(app.port, cpu) == b"ok"
