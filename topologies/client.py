"""The host of the load generator. Workloads do not know whether it is a network namespace or another machine."""

from pathlib import Path
from typing import Protocol


class Client(Protocol):
    """A host that sends requests, such as topologies.namespace.Namespace.

    pid: a process on the host; for another machine, a process here that stands for it.
    """

    pid: int

    def command(self, cpus: list[int], argv: list[str]) -> list[str]:
        """The command line, to be started on this machine, that runs argv on the host, pinned to these CPUs there."""

    def deploy(self, file: Path) -> str:
        """Make a file of this machine available on the host, and return its path there."""

    def ask(self, address: str, port: int, request: bytes, seconds: float) -> bytes:
        """Send a request from the host, and return what the server answers until it closes the connection.

        Raises OSError, or HostError where the host is another machine; also when it takes longer than these seconds.
        """
