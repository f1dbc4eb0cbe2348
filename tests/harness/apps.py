"""Programs of libfsocket_apps/ under the library, spoken to in lines over pipes.

Over loopback the CPU that sends a SYN handles it, so a client chooses the CPU of its connection by running there.
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from fastsocket import shared_memory
from fastsocket.build import LIBRARY, build
from tests.harness.cpus import CPUS
from tests.harness.needs import need
from tests.libfsocket_apps.loopback import connect, on_cpus

APPS = Path(__file__).parent.parent / "libfsocket_apps"
LOOPBACK = "127.0.0.1"
COUNTING = "COVERAGE_PROCESS_CONFIG"  # with it, coverage.py counts what a program of Python runs, and writes a file
EVERYTHING_ON = {f"FSOCKET_{part}": "on" for part in ("FAST_EPOLL", "FLOW_DELIVER", "ANSWER_WITH_FIN", "DELAYED_ACK")}


PRELOAD = {"LD_PRELOAD": str(LIBRARY)}
SANITIZED = pytest.param("sanitized", marks=pytest.mark.slow)
KINDS = {"plain": PRELOAD, "everything on": PRELOAD | EVERYTHING_ON}


def preloading(kind: str) -> dict[str, str]:
    """The environment that loads the library: "plain", with "everything on", or "sanitized" and with everything on."""
    return sanitized_environment() if kind == "sanitized" else KINDS[kind]


def without_library(kind: str) -> dict[str, str]:
    """What preloading() loads besides the library: AddressSanitizer makes a program slow by itself."""
    return _address_sanitizer() if kind == "sanitized" else {}


def sanitized_environment() -> dict[str, str]:
    """Loads the library that was built with AddressSanitizer, which is loaded first."""
    build("sanitized")
    sanitizer = _address_sanitizer()
    library = LIBRARY.parent / "address" / LIBRARY.name
    return sanitizer | {"LD_PRELOAD": f"{sanitizer['LD_PRELOAD']} {library}"} | EVERYTHING_ON


def _address_sanitizer() -> dict[str, str]:
    need("gcc")
    library = subprocess.run(["gcc", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True).stdout
    return {"LD_PRELOAD": library.strip(), "ASAN_OPTIONS": "detect_leaks=0"}


def compiled(source: str, directory: Path, *options: str) -> Path:
    """A C program of libfsocket_apps/; with "-shared" a library."""
    need("gcc")
    binary = directory / Path(source).stem
    subprocess.run(["gcc", "-O1", "-Wall", "-Wextra", "-Werror", *options, "-o", binary, APPS / source], check=True)
    return binary


class App:
    """A program of libfsocket_apps/, spoken to in lines. Leaving it checks that it ended well, and what it logged."""

    def __init__(
        self,
        program: str | Sequence[str],
        environment: dict[str, str],
        log: str | None = "",
        launcher: Sequence[str] = (),
    ):
        command = [sys.executable, APPS / program] if isinstance(program, str) else program
        self._expected_log = log
        self._log = tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen(
            [*launcher, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            bufsize=1,
            env={name: value for name, value in os.environ.items() if name != COUNTING} | environment,
        )

    @property
    def process(self) -> int:
        return self._process.pid

    def tell(self, *command) -> None:
        with suppress(BrokenPipeError):  # then there is nothing to read either
            self._process.stdin.write(json.dumps(command) + "\n")

    def ask(self, *command):
        self.tell(*command)
        return self.read()

    def read(self):
        line = self._process.stdout.readline()
        assert line, f"the application ended: {self.log()}"
        return json.loads(line)

    def read_all(self) -> list:
        """Of a program that ends by itself."""
        return [json.loads(line) for line in self._process.stdout]

    def log(self) -> str:
        self._log.seek(0)
        return self._log.read()

    def __enter__(self):
        return self

    def __exit__(self, exception_type, *exception):
        with suppress(BrokenPipeError):  # the exit status tells
            self._process.stdin.close()
        status = self._process.wait()
        self._process.stdout.close()
        log = self.log()
        self._log.close()
        if exception_type is None and self._expected_log is not None:
            assert log.startswith(self._expected_log) and log.count("\n") == bool(self._expected_log), log
        if exception_type is None:
            assert status == 0


class Server(App):
    """libfsocket_apps/server.py, on our two CPUs and listening."""

    def __init__(
        self,
        environment: dict[str, str],
        log: str | None = "",
        launcher: Sequence[str] = (),
        program: Sequence[str] = (sys.executable, APPS / "server.py"),
    ):
        with on_cpus(CPUS):
            super().__init__(program, environment, log, launcher)

    def listen(self, *arguments) -> dict:
        return self.know(self.ask("listen", *arguments))

    def know(self, about: dict) -> dict:
        """What it says of itself and its listener."""
        self.pid, self.port = about["pid"], about["port"]
        return about

    def connect(self, cpu: int, number: int, host: str = LOOPBACK) -> list[socket.socket]:
        with on_cpus({cpu}):
            return [connect((host, self.port)) for _ in range(number)]

    def request(self, cpu: int, number: int, host: str = LOOPBACK) -> list[dict]:
        return [answer(connection) for connection in self.connect(cpu, number, host)]

    def total(self, name: str) -> int:
        return sum(getattr(cpu, name) for cpu in shared_memory.counters(self.pid))

    def per_cpu(self, name: str) -> list[int]:
        totals = shared_memory.counters(self.pid)
        return [getattr(totals[cpu], name) for cpu in CPUS]


def answer(connection: socket.socket) -> dict:
    """What the server says until it closes. Raises ConnectionResetError, or TimeoutError where it says nothing."""
    with connection, connection.makefile() as reader:
        return json.load(reader)


def pids(answers: list[dict]) -> set[int]:
    return {answer["pid"] for answer in answers}
