"""Servers that use one core: an instance for each, on ports of their own, as the slides run Redis."""

import json
import sys
from abc import abstractmethod
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import fmean
from subprocess import PIPE

from topologies.testbed import Testbed
from workloads import limits, paced
from workloads.load import Demand, Load
from workloads.process import finish, reaped_cpu_seconds, running, started
from workloads.readiness import watchers
from workloads.variants import Variant
from workloads.workload import Cpus, Workload


class Instances(Workload):
    """One instance per core, pinned there; persistent connections, so that steering by port is what can help."""

    metric = "rps"
    first_port: int
    lacks = {"latest": "a single thread accepts: there is nothing to share out"}

    def ports(self, cpus: Cpus) -> range:
        return range(self.first_port, self.first_port + len(cpus.server))

    def cpu_of_port(self, cpus: Cpus) -> dict[int, int]:
        return dict(zip(self.ports(cpus), cpus.server))

    @abstractmethod
    def command(self, port: int, directory: Path) -> list[str]:
        """What starts an instance."""

    @abstractmethod
    def dialogue(self) -> dict[str, str]:
        """For a load at a rate, as paced.py wants it: what brings in the value, the request for it, and the answers."""

    @abstractmethod
    def at_full_speed(self, testbed: Testbed, cpus: Cpus, demand: Demand) -> Load:
        """By the server's own load generator."""

    def load(self, testbed: Testbed, cpus: Cpus, demand: Demand) -> Load:
        return self._at_a_rate(testbed, cpus, demand) if demand.rate else self.at_full_speed(testbed, cpus, demand)

    def _at_a_rate(self, testbed: Testbed, cpus: Cpus, demand: Demand) -> Load:
        rate = demand.rate / len(cpus.server)
        commands = [
            testbed.command(
                testbed.client,
                cpus.load,
                [
                    sys.executable,
                    paced.__file__,
                    testbed.server.IP(),
                    str(port),
                    str(rate),
                    str(demand.seconds),
                    str(limits.read().grace_seconds / 4),
                    json.dumps(self.dialogue()),
                ],
            )
            for port in self.ports(cpus)
        ]
        outs, cpu_seconds = on_all(commands, "paced.py", demand.seconds)
        return together([Load(cpu_seconds=0.0, **json.loads(out)) for out in outs], cpu_seconds)

    @contextmanager
    def serve(self, testbed: Testbed, variant: Variant, cpus: Cpus, directory: Path):
        with ExitStack() as instances:
            yield [
                instances.enter_context(self._instance(testbed, variant, port, cpu, directory))
                for port, cpu in self.cpu_of_port(cpus).items()
            ]

    def _instance(self, testbed: Testbed, variant: Variant, port: int, cpu: int, directory: Path):
        own = directory / str(port)
        own.mkdir()
        command = testbed.command(testbed.server, [cpu], self.command(port, own))
        return started(self.name, command, own, lambda pid: watchers(pid, port) == 1, env=variant.environment())


def together(loads: list[Load], cpu_seconds: float) -> Load:
    """What instances served at the same time: rates add up, and a latency percentile is the mean of theirs."""
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


def on_all(commands: list[list[str]], name: str, seconds: float) -> tuple[list[str], float]:
    """Run load generators of so many seconds at the same time: what each printed, and their CPU time.

    Raises WorkloadError.
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
