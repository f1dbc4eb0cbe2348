"""Memcached: on each core one instance with one thread, on a port of its own, with persistent connections."""

import re
from pathlib import Path

from topologies.testbed import Testbed
from workloads.generator import Dialogue
from workloads.instances import Instances, on_all, together
from workloads.load import Demand, Load
from workloads.process import WorkloadError
from workloads.workload import Cpus

CLIENTS = 50
VALUE_BYTES = 64
VALUE = "x" * VALUE_BYTES


class Memcached(Instances):
    """Memcached under nine GET to one SET, which is memcaslap's own mixture.

    Each instance has one thread, so that packets can be steered to it. The threads of a single instance would take
    connections in turn, and not by core.
    """

    name = "memcached"
    first_port = 11211
    binaries = {"memcached": ["-V"], "memcaslap": ["-V"]}
    packages = {"memcached": "memcached", "memcaslap": "libmemcached-tools"}

    def command(self, port: int, directory: Path) -> list[str]:
        return ["memcached", "-l", "0.0.0.0", "-p", str(port), "-U", "0", "-t", "1", "-u", "root", "-c", "1024"]

    def preparation(self) -> tuple[str, str]:
        return f"set object 0 0 {VALUE_BYTES}\r\n{VALUE}\r\n", "STORED\r\n"

    def dialogue(self) -> Dialogue:
        begins, ends = f"VALUE object 0 {VALUE_BYTES}\r\n", f"{VALUE}\r\nEND\r\n"
        return Dialogue("get object\r\n", begins, ends, connections=CLIENTS)

    def at_full_speed(self, testbed: Testbed, cpus: Cpus, demand: Demand) -> Load:
        commands = [
            testbed.command(
                testbed.client,
                cpus.load,
                [
                    "memcaslap",
                    "-s",
                    f"{testbed.server.IP()}:{port}",
                    "-T",
                    "1",
                    "-c",
                    str(CLIENTS),
                    "-X",
                    str(VALUE_BYTES),
                    "-t",
                    f"{demand.seconds}s",
                    "-S",
                    f"{demand.seconds}s",
                ],
            )
            for port in self.ports(cpus)
        ]
        outs, cpu_seconds = on_all(commands, "memcaslap", demand.seconds)
        return together([_load(out) for out in outs], cpu_seconds)


def _load(out: str) -> Load:
    """The load from memcaslap's output. Of the latencies only the largest is used: the others are powers of two."""
    found = re.search(r"Total Statistics \(\d+ events\).*?Max: +(\d+).*Ops: (\d+) TPS: (\d+)", out, re.DOTALL)
    if not found:
        raise WorkloadError(f"memcaslap did not tell its results: {out.strip()[-200:]}")
    longest_us, requests, rate = map(int, found.groups())
    return Load(
        requests=requests, seconds=requests / rate, latency_ms={"max": longest_us / 1000}, errors={}, cpu_seconds=0.0
    )
