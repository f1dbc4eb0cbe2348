"""Describe the running servers in the text exposition format of Prometheus."""

from collections import defaultdict
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from fastsocket.counters import COUNTER_NAMES, COUNTERS, Counter
from fastsocket.servers import Server
from fastsocket.shared_memory import Listener, LocalListener

ACCEPTED = "accepted_"  # counters whose names begin so become one metric, with the rest of the name as a label
CAN_FALL = {"fallen_back"}  # a worker that found no local listener may find one later
ACCEPTED_FROM = [name.removeprefix(ACCEPTED) for name in COUNTER_NAMES if name.startswith(ACCEPTED)]


def exposition(servers: list[Server]) -> str:
    """The text for Prometheus: HELP, TYPE and samples of each metric. Without servers it has no samples."""
    registry = CollectorRegistry()
    registry.register(_Servers(servers))
    return generate_latest(registry).decode()


class _Servers(Collector):
    def __init__(self, servers: list[Server]):
        self._servers = servers

    def collect(self) -> Iterator[Metric]:
        yield self._processes()
        yield self._accepted()
        for counter in COUNTERS:
            if not counter.name.startswith(ACCEPTED):
                yield self._counter(counter)
        yield self._accelerated()
        yield self._adopters()
        yield self._waited()

    def _processes(self) -> Metric:
        family = GaugeMetricFamily("fastsocket_processes", "Processes of the server", labels=["pid", "command"])
        for server in self._servers:
            family.add_metric([str(server.pid), server.command], len(server.processes))
        return family

    def _accepted(self) -> Metric:
        family = CounterMetricFamily(
            "fastsocket_accepted",
            "Connections accepted on a CPU from its own local listener, from the application's "
            "(global) or from another CPU's (neighbour)",
            labels=["pid", "cpu", "listener"],
        )
        for server in self._servers:
            for cpu in server.counters:
                for source in ACCEPTED_FROM:
                    family.add_metric([str(server.pid), str(cpu.cpu), source], getattr(cpu, ACCEPTED + source))
        return family

    def _counter(self, counter: Counter) -> Metric:
        kind = GaugeMetricFamily if counter.name in CAN_FALL else CounterMetricFamily
        family = kind(f"fastsocket_{counter.name}", counter.meaning, labels=["pid", "cpu"])
        for server in self._servers:
            for cpu in server.counters:
                family.add_metric([str(server.pid), str(cpu.cpu)], getattr(cpu, counter.name))
        return family

    def _accelerated(self) -> Metric:
        family = GaugeMetricFamily(
            "fastsocket_accelerated", "Whether connections go to the workers' own CPUs", labels=["pid", "address"]
        )
        for (pid, address), listeners in self._listeners().items():
            family.add_metric([pid, address], all(not listener.why_not for listener in listeners))
        return family

    def _adopters(self) -> Metric:
        family = GaugeMetricFamily(
            "fastsocket_adopters", "Threads that accept from a CPU's local listener", labels=["pid", "address", "cpu"]
        )
        for labels, clones in self._clones().items():
            family.add_metric(labels, sum(len(clone.adopters) for clone in clones))
        return family

    def _waited(self) -> Metric:
        family = GaugeMetricFamily(
            "fastsocket_unattended_seconds",
            "Since somebody last waited for a local listener",
            labels=["pid", "address", "cpu"],
        )
        for labels, clones in self._clones().items():
            ages = [clone.tended_ms_ago for clone in clones if clone.tended_ms_ago is not None]
            if ages:
                family.add_metric(labels, max(ages) / 1000)
        return family

    def _listeners(self) -> dict[tuple[str, str], list[Listener]]:
        """The listeners by pid and address, their labels. Prometheus would refuse two samples with the same labels."""
        found = defaultdict(list)
        for server in self._servers:
            for listener in server.listeners:
                found[str(server.pid), str(listener)].append(listener)
        return found

    def _clones(self) -> dict[tuple[str, str, str], list[LocalListener]]:
        found = defaultdict(list)
        for (pid, address), listeners in self._listeners().items():
            for clone in (clone for listener in listeners for clone in listener.cpus):
                found[pid, address, str(clone.cpu)].append(clone)
        return found
