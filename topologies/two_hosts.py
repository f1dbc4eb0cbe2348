"""This machine as the server, with the load generator on another machine. Both machines' networks stay as they are."""

import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from subprocess import PIPE

from fastsocket.steering import Link
from records.metrics import ACTIVE_LOCAL, PACKETS_IN, PACKETS_OUT, SERVER_COST
from topologies.client import Client
from topologies.namespace import Namespace
from topologies.ssh import SshHost
from topologies.tag import RunTag
from topologies.testbed import Testbed, TestbedError

_MARKED = 'mount -t tmpfs -o size=4k "$0" "$1" && echo marked && exec cat'


@dataclass(frozen=True)
class Here(Namespace):
    """This machine's own network, in a mount namespace that carries the run's tag."""

    pid: int
    address: str

    def IP(self) -> str:  # Mininet's hosts have a method of this name
        return self.address


class TwoHosts(Testbed):
    """A testbed whose client is a topologies.ssh.SshHost. Raises TestbedError and HostError.

    client: the other machine's name for ssh. address: this machine's address, by which the client reaches the server.
    programs: the load generators, each with its Debian package.
    """

    client: SshHost
    untold = {
        ACTIVE_LOCAL: "connections of other programs are in the server's network, too",
        SERVER_COST: "no task's time is that of the server's packets alone",
        **dict.fromkeys((PACKETS_IN, PACKETS_OUT), "packets of other programs are in the server's network, too"),
    }

    def __init__(self, tag: RunTag, client: str, address: str, programs: Mapping[str, str]):
        self._tag, self._name, self._address, self._programs = tag, client, address, programs
        self._cleanup = ExitStack()

    def _build(self, cleanup: ExitStack) -> None:
        self.server, near = (cleanup.enter_context(here(self._tag, self._address)) for _ in range(2))
        self.client = cleanup.enter_context(SshHost(self._name, near, self._tag.directory, self._programs))
        self.load_cpus = self.client.cpus
        self.told = {
            "client": self.client.name,
            "client's system": self.client.system,
            "client's CPUs": f"{len(self.client.cpus)}",
            **{f"client's {name}": self.client.first_line([name, "--version"]) for name in self._programs},
        }

    @property
    def hosts(self) -> dict[str, Client]:
        """The server, which is this machine, and the client, by name."""
        return {"server": self.server, "client": self.client}

    def links_to(self, host: object) -> list[Link]:
        """No links: those of this machine are not the lab's to steer."""
        return []


@contextmanager
def here(tag: RunTag, address: str = "") -> Iterator[Here]:
    """This machine's own network as a host, in a mount namespace that carries the tag, for the with block.

    address: the address by which other machines reach it, if any do. Raises TestbedError.
    """
    command = ["unshare", "--mount", "sh", "-c", _MARKED, tag.tag, str(tag.mount_point)]
    with subprocess.Popen(command, stdin=PIPE, stdout=PIPE, stderr=PIPE, start_new_session=True) as process:
        assert process.stdout and process.stderr  # they are pipes
        try:
            if not process.stdout.readline():
                raise TestbedError(f"cannot mark this machine's own network: {process.stderr.read().decode().strip()}")
            yield Here(process.pid, address)
        finally:
            process.kill()
