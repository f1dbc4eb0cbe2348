"""Servers that use one core: one instance runs on each core, on a port of its own, as the slides run Redis."""

import socket
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from subprocess import PIPE

from topologies.namespace import inside
from topologies.testbed import Testbed
from workloads import limits
from workloads.generator import Dialogue, open_loop
from workloads.load import Demand, Load
from workloads.process import WorkloadError, finish, reaped_cpu_seconds, running, started
from workloads.readiness import watchers
from workloads.variants import Variant
from workloads.workload import Cpus, Workload


class Instances(Workload):
    """One instance per core, pinned there. Connections are persistent, so only steering by port can help."""

    metric = "rps"
    first_port: int
    lacks = {"latest": "a single thread accepts: there is nothing to share out"}

    def ports(self, cpus: Cpus) -> range:
        return range(self.first_port, self.first_port + len(cpus.server))

    def cpu_of_port(self, cpus: Cpus) -> dict[int, int]:
        return dict(zip(self.ports(cpus), cpus.server))

    @abstractmethod
    def command(self, port: int, directory: Path) -> list[str]:
        """The command line that starts an instance."""

    @abstractmethod
    def preparation(self) -> tuple[str, str]:
        """The request that stores the value for a load at a rate, and the answer to it."""

    @abstractmethod
    def dialogue(self) -> Dialogue:
        """The dialogue of a load at a rate."""

    @abstractmethod
    def at_full_speed(self, testbed: Testbed, cpus: Cpus, demand: Demand) -> Load:
        """Load the server with its own load generator, at full speed."""

    def load(self, testbed: Testbed, cpus: Cpus, demand: Demand) -> Load:
        return self._at_a_rate(testbed, cpus, demand) if demand.rate else self.at_full_speed(testbed, cpus, demand)

    def _at_a_rate(self, testbed: Testbed, cpus: Cpus, demand: Demand) -> Load:
        for port in self.ports(cpus):
            bring_in(testbed, port, *self.preparation())
        return open_loop(testbed, cpus, demand, self.ports(cpus), self.dialogue())

    @contextmanager
    def serve(self, testbed: Testbed, variant: Variant, cpus: Cpus, directory: Path) -> Iterator[list[int]]:
        with ExitStack() as instances:
            yield [
                instances.enter_context(self._instance(testbed, variant, port, cpu, directory))
                for port, cpu in self.cpu_of_port(cpus).items()
            ]

    def _instance(
        self, testbed: Testbed, variant: Variant, port: int, cpu: int, directory: Path
    ) -> AbstractContextManager[int]:
        own = directory / str(port)
        own.mkdir()
        command = testbed.command(testbed.server, [cpu], self.command(port, own))
        return started(self.name, command, own, lambda pid: watchers(pid, port) == 1, env=variant.environment())


def bring_in(testbed: Testbed, port: int, request: str, answer: str) -> None:
    """Store the value that a load will ask for. Raises WorkloadError when the server does not answer as it should."""
    with (
        inside(testbed.client),
        connected(testbed.server.IP(), port) as connection,
        connection.makefile("rb") as answers,
    ):
        connection.sendall(request.encode())
        said = answers.read(len(answer)).decode()
    if said != answer:
        raise WorkloadError(f"the server at port {port} does not store what is to be asked for: it says {said!r}")


@contextmanager
def connected(address: str, port: int) -> Iterator[socket.socket]:
    try:
        connection = socket.create_connection((address, port), timeout=limits.read().answer_seconds)
    except OSError as error:
        raise WorkloadError(f"the server at port {port} takes no connection: {error}") from error
    with connection:
        yield connection


def together(loads: list[Load], cpu_seconds: float) -> Load:
    """The loads of instances at the same time as one load.

    Rates add up. A latency percentile is the mean over instances; the largest latency is the largest of all.
    """
    requests = sum(load.requests for load in loads)
    rate = sum(load.requests / load.seconds for load in loads)
    return Load(
        requests=requests,
        seconds=requests / rate if requests else max(load.seconds for load in loads),
        latency_ms={
            percentile: _combined(percentile, [load.latency_ms[percentile] for load in loads])
            for percentile in loads[0].latency_ms
        },
        errors={kind: sum(load.errors[kind] for load in loads) for kind in loads[0].errors},
        cpu_seconds=cpu_seconds,
    )


def in_turn(loads: list[Load]) -> Load:
    """Loads that followed one another as one load. A latency percentile is the mean of theirs."""
    return replace(
        together(loads, sum(load.cpu_seconds for load in loads)), seconds=sum(load.seconds for load in loads)
    )


def on_all(commands: list[list[str]], name: str, seconds: float) -> tuple[list[str], float]:
    """Run load generators at the same time. Returns what each printed, and the CPU seconds of all of them.

    seconds: how long each of them loads the server. Raises WorkloadError.
    """
    spent_before = reaped_cpu_seconds()
    with ExitStack() as generators:
        processes = [
            generators.enter_context(running(command, stdout=PIPE, stderr=PIPE, text=True)) for command in commands
        ]
        outs = [finish(process, name, seconds) for process in processes]
    return outs, reaped_cpu_seconds() - spent_before


def _combined(percentile: str, values: list[float]) -> float:
    return max(values) if percentile == "max" else fmean(values)
