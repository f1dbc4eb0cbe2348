"""Redis, the slides' benchmark of persistent connections: an instance per core, on a port of its own."""

import csv
from pathlib import Path

from topologies.testbed import Testbed
from workloads import limits
from workloads.generator import Dialogue
from workloads.instances import Instances, on_all, together
from workloads.load import Demand, Load
from workloads.workload import Cpus

CLIENTS = 50
REHEARSED_REQUESTS = 5000
LONGEST_END = 250  # the most bytes of an answer's end that the load generator can compare


class Redis(Instances):
    """Redis under GET. With values that do not fit into a CPU's cache, the speed of memory is the limit."""

    program = "redis-server"
    first_port = 6379
    binaries = {"redis-server": ["-v"], "redis-benchmark": ["--version"]}
    packages = {"redis-server": "redis-server", "redis-benchmark": "redis-tools"}

    def __init__(self, name: str, value_bytes: int, keys: int):
        self.name = name
        self._value_bytes = value_bytes
        self._keys = keys

    def command(self, port: int, directory: Path) -> list[str]:
        return [
            self.program,
            "--bind",
            "0.0.0.0",
            "--port",
            str(port),
            "--dir",
            str(directory),
            "--save",
            "",
            "--protected-mode",
            "no",
            "--tcp-backlog",
            "65535",
        ]

    def rehearse(self, testbed: Testbed, cpus: Cpus) -> float:
        """Set the keys, and get some of them. Returns the pace in requests per second."""
        most = limits.read().rehearsed_requests
        self._benchmark(testbed, cpus, "set", min(self._keys, most))
        rehearsed = self._benchmark(testbed, cpus, "get", min(REHEARSED_REQUESTS, most))
        return rehearsed.requests / rehearsed.seconds

    def preparation(self) -> tuple[str, str]:
        return f"SET object {'x' * self._value_bytes}\r\n", "+OK\r\n"

    def dialogue(self) -> Dialogue:
        end = "x" * min(self._value_bytes, LONGEST_END) + "\r\n"
        return Dialogue("GET object\r\n", begins=f"${self._value_bytes}\r\n", ends=end, connections=CLIENTS)

    def at_full_speed(self, testbed: Testbed, cpus: Cpus, demand: Demand) -> Load:
        each = int(demand.pace * demand.seconds / len(self.ports(cpus)))
        return self._benchmark(testbed, cpus, "get", each, demand.seconds)

    def _benchmark(self, testbed: Testbed, cpus: Cpus, test: str, requests: int, seconds: float = 0) -> Load:
        """Run redis-benchmark on all instances at once. requests: how many each instance gets."""
        commands = [self._command(testbed, cpus, port, test, requests) for port in self.ports(cpus)]
        outs, cpu_seconds = on_all(commands, "redis-benchmark", seconds)
        return together([_load(out, requests) for out in outs], cpu_seconds)

    def _command(self, testbed: Testbed, cpus: Cpus, port: int, test: str, requests: int) -> list[str]:
        return testbed.command(
            testbed.client,
            cpus.load,
            [
                "redis-benchmark",
                "-h",
                testbed.server.IP(),
                "-p",
                str(port),
                "-c",
                str(CLIENTS),
                "-n",
                str(requests),
                "-r",
                str(self._keys),
                "-d",
                str(self._value_bytes),
                "-t",
                test,
                "--csv",
            ],
        )


def _load(out: str, requests: int) -> Load:
    (row,) = csv.DictReader(out.splitlines())
    percentiles = {"50": "p50", "95": "p95", "99": "p99", "max": "max"}
    return Load(
        requests=requests,
        seconds=requests / float(row["rps"]),
        errors={},
        cpu_seconds=0.0,
        latency_ms={key: float(row[f"{column}_latency_ms"]) for key, column in percentiles.items()},
    )
