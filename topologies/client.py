"""Where the load generator runs. No workload knows whether that is a network namespace or another machine."""

from pathlib import Path
from typing import Protocol


class Client(Protocol):
    """A host that sends requests: topologies.namespace.Namespace is one. pid: a process there, or here in its place."""

    pid: int

    def command(self, cpus: list[int], argv: list[str]) -> list[str]:
        """The command line, for this machine, that runs argv on the host, pinned to these CPUs of it."""

    def deploy(self, file: Path) -> str:
        """The path by which the host has a file of ours."""

    def ask(self, address: str, port: int, request: bytes, seconds: float) -> bytes:
        """What a server answers to a request from the host until it closes. Raises OSError or, of another machine,
        HostError; also when that takes so many seconds."""
