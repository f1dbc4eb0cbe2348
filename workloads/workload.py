"""The base of all workloads: a server in its network, and the load that it gets."""

import re
import shutil
import subprocess
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from mininet.topo import Topo

from topologies.pair import Pair
from topologies.testbed import Testbed
from workloads.load import Demand, Load
from workloads.process import WorkloadError
from workloads.variants import Variant


@dataclass(frozen=True)
class Cpus:
    """The CPUs of a trial. On each CPU of the server runs one worker, thread or instance of it."""

    server: list[int]
    load: list[int]


class Workload(ABC):
    """A server to measure. To add one: a subclass in a file of its own, and a line in workloads/__init__.py."""

    name: str
    binaries: dict[str, list[str]]  # command -> the arguments that make it print its version
    packages: dict[str, str]  # command -> its Debian package; a literal: setup/packages.py does not import it
    loader: str = ""  # the binary that loads the server at full speed; empty: no client on another machine can
    metric: str = "cps"  # what a trial counts: connections per second, or "rps", requests, where connections persist
    topology: type[Topo] = Pair
    lacks: dict[str, str] = {}  # variant -> why this server does not have it
    ways: dict[str, str] = {}  # Variant.way -> how this server is configured for it
    preparation_seconds: float = 0.0  # about how long a trial takes beside its load and the start of its server

    @abstractmethod
    def ports(self, cpus: Cpus) -> range:
        """The ports on which the server listens. Connections to these ports are the passive ones."""

    def why_not(self, variant: Variant) -> str | None:
        """Why this server does not have the variant, or None."""
        if variant.way and variant.way not in self.ways:
            return f"{self.name} has no such way to work"
        needs_own = variant.own_reuseport and not variant.rfs  # RFS helps servers without such listeners, too
        return self.lacks.get(variant.name) or (self.lacks.get("latest") if needs_own else None)

    def cpu_of_port(self, cpus: Cpus) -> dict[int, int]:
        """The CPU of each port, for steering by destination port; empty unless each port's server runs on one CPU."""
        return {}

    @abstractmethod
    def serve(
        self, testbed: Testbed, variant: Variant, cpus: Cpus, directory: Path
    ) -> AbstractContextManager[list[int]]:
        """Run the server on the testbed's host ``server``. Yields the process ids of its instances once they answer.

        Raises WorkloadError with the server's own words when it does not start.
        """

    def rehearse(self, testbed: Testbed, cpus: Cpus) -> float:
        """Prepare a trial: store what the server serves, and return its pace in requests per second.

        The pace is for load generators that have to be told how many requests to make. Raises WorkloadError.
        """
        return 0.0

    @abstractmethod
    def load(self, testbed: Testbed, cpus: Cpus, demand: Demand) -> Load:
        """Load the server from the testbed's host ``client``. Raises WorkloadError."""

    def afterwards(self, testbed: Testbed, variant: Variant, cpus: Cpus) -> dict[str, float]:
        """Further metrics of a trial, measured after the load while the server still runs. Raises WorkloadError."""
        return {}

    def versions(self, without: str = "") -> dict[str, str]:
        """The version of each binary, except the binary ``without``. Raises WorkloadError when one is not installed."""
        return {binary: _version(binary, arguments) for binary, arguments in self.binaries.items() if binary != without}


def _version(binary: str, arguments: list[str]) -> str:
    path = shutil.which(binary)
    if not path:
        raise WorkloadError(f"{binary} is not installed: python3 lab.py doctor says how to get it")
    said = subprocess.run([path, *arguments], capture_output=True, text=True)
    found = re.search(r"\d+\.\d[\w.+~-]*", said.stdout + said.stderr)
    return found[0] if found else "unknown"
