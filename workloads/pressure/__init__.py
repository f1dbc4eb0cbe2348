"""HAProxy under pressure: many connections to its backend are open already.

For a new connection the kernel tries one source port after the other, all even ports before any odd one. Linux 6.15
made a try cheaper (docs/lab.md, "Pressure"). The library tries some ports of its CPU, taken at random.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from topologies.testbed import Testbed
from workloads import http
from workloads.haproxy import HAProxy
from workloads.pressure import connects, held
from workloads.process import WorkloadError, finish, running
from workloads.variants import Variant
from workloads.workload import Cpus

BYTES_EACH = 3000  # the kernel's memory for a connection; measured: 2,800
CONNECTIONS_PER_SECOND = 60_000  # how many connections two CPUs open and close again


class HAProxyUnderPressure(HAProxy):
    """HAProxy under pressure. A trial also times connect() in another process, under the same variant."""

    def __init__(self, name: str, connections: int):
        self.name = name
        self._connections = connections
        self.preparation_seconds = connects.SECONDS + connections / CONNECTIONS_PER_SECOND

    @contextmanager
    def serve(self, testbed: Testbed, variant: Variant, cpus: Cpus, directory: Path) -> Iterator[list[int]]:
        with (
            holding(testbed, variant, cpus, self._connections),
            super().serve(testbed, variant, cpus, directory) as pids,
        ):
            yield pids

    def afterwards(self, testbed: Testbed, variant: Variant, cpus: Cpus) -> dict[str, float]:
        on = ",".join(map(str, cpus.server))
        command = _program(testbed, cpus.server, connects.__file__, on)
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        with running(command, env=variant.environment(), **pipes) as process:
            us = json.loads(finish(process, "the timing of connect()", connects.SECONDS))
        return {f"connect_p{percent}_us": value for percent, value in us.items()}


@contextmanager
def holding(testbed: Testbed, variant: Variant, cpus: Cpus, connections: int) -> Iterator[None]:
    """Hold this many connections from the server's host to its backend during the with block. Raises WorkloadError."""
    _require_memory(connections)
    order = "any" if variant.chooses_ports else "even-first"
    command = _program(testbed, cpus.load, held.__file__, str(connections), order)
    with running(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        if not process.stdout or not process.stdout.readline():
            raise WorkloadError(f"{connections} connections could not be opened: {process.communicate()[1].strip()}")
        try:
            yield
        finally:
            process.terminate()
            process.wait()  # until all connections are closed: the next trial takes the same ports


def _program(testbed: Testbed, cpus: list[int], file: str, *arguments: str) -> list[str]:
    """The command line that runs a program of this folder on the server's host, with the backend's address and port."""
    return testbed.command(
        testbed.server, cpus, [sys.executable, file, testbed.backend.IP(), str(http.PORT), *arguments]
    )


def _require_memory(connections: int) -> None:
    """Raises WorkloadError where these connections would take more than half of the available memory."""
    lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    there, needed = 1024 * int(lines["MemAvailable"].split()[0]), BYTES_EACH * connections
    if needed > there / 2:
        raise WorkloadError(
            f"{connections} connections take {needed >> 20} MB, more than half of the {there >> 20} MB here"
        )
