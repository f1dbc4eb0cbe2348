"""One real trial of each kind of server: are packets handled on the core whose application reads them?"""

from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path

import pytest

from bench.schedule import Slot
from bench.sweep import bench
from fastsocket import reads
from probes.trial import Locality, LocalityProbe
from records.run import Placement
from tests.harness.cpus import ALL_CPUS, NEEDS_TWO_CPUS
from tests.harness.locality import ALL, BY_CHANCE, KEPT_BY_CHANCE, assert_all_local
from topologies.namespace import inside
from workloads import WORKLOADS, limits
from workloads.nginx import Nginx
from workloads.variants import SKB_DEFER_MAX, VARIANTS

PLACEMENT = Placement(cores=len(ALL_CPUS), server_cpus=ALL_CPUS, load_cpus=ALL_CPUS)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.privileged,
    pytest.mark.timeout(60),
    NEEDS_TWO_CPUS,
]


@pytest.fixture(scope="module", params=["threads", "rps"])
def trials(request):
    with bench(["haproxy", "redis"], len(ALL_CPUS), request.param) as (made, _):
        yield made


def measured(trials, workload: str, variant: str, observe=None):
    return trials.run(Slot(0, 0, workload, variant, False, len(ALL_CPUS)), PLACEMENT, seconds=1, observe=observe)


def test_a_proxy_has_both_kinds_of_connections_on_their_cores(trials):
    base, fastsocket = (measured(trials, "haproxy", variant) for variant in ("base", "fastsocket"))
    assert base.metrics["passive_local_percent"] == BY_CHANCE
    assert base.metrics["active_local_percent"] == BY_CHANCE
    assert_all_local(fastsocket)
    assert fastsocket.metrics["active_local_percent"] >= ALL


def test_xdp_at_the_receiving_end_steers_as_well():
    with bench(["haproxy"], len(ALL_CPUS), "cpumap") as (made, _):
        assert measured(made, "haproxy", "base").metrics["passive_local_percent"] == BY_CHANCE
        fastsocket = measured(made, "haproxy", "fastsocket")
    assert_all_local(fastsocket)
    assert fastsocket.metrics["active_local_percent"] >= ALL


@pytest.mark.parametrize("workload", ["nginx", "haproxy"])
def test_an_attached_server_has_its_passive_connections_on_their_cores(trials, workload):
    assert_all_local(measured(trials, workload, "attached"))


def test_without_chosen_ports_only_atr_finds_the_cores_of_active_connections(trials):
    """Perfect filters have nothing to go by, and rules that are told nothing are no better than RSS."""
    assert measured(trials, "haproxy", "any-port").metrics["active_local_percent"] == BY_CHANCE
    assert measured(trials, "haproxy", "rss").metrics["active_local_percent"] == BY_CHANCE
    assert measured(trials, "haproxy", "atr-any-port").metrics["active_local_percent"] >= min(ALL, 99)


def test_every_connection_of_a_proxy_is_delivered(trials):
    trial = measured(trials, "haproxy", "fastsocket")
    delivered = sum(cpu.delivered for cpu in trial.library)
    assert delivered >= 0.99 * trial.metrics["cps"] * trial.seconds
    assert sum(cpu.undelivered for cpu in trial.library) <= 0.001 * delivered


def test_all_packets_come_by_one_core_where_that_is_asked_for(trials):
    slot = Slot(0, 0, "haproxy", "fastsocket", False, len(ALL_CPUS))
    first, *others = trials.run(slot, PLACEMENT, seconds=1, one_queue=True).library
    assert first.accepted_local > 0
    assert not any(other.accepted_local for other in others)


def test_packets_are_taken_in_on_another_core_where_that_is_asked_for(trials):
    one = Placement(cores=1, server_cpus=ALL_CPUS[:1], load_cpus=ALL_CPUS)
    elsewhere = trials.run(Slot(0, 0, "haproxy", "other-core", False, 1), one, seconds=1).metrics
    assert elsewhere["passive_local_percent"] == elsewhere["active_local_percent"] == 0 < elsewhere["cps"]


def test_instances_get_their_packets_on_their_cores(trials):
    assert measured(trials, "redis", "base").metrics["passive_local_percent"] == KEPT_BY_CHANCE
    assert_all_local(measured(trials, "redis", "fastsocket"))


@pytest.mark.parametrize("workload, variant", [("haproxy", "base"), ("haproxy", "fastsocket"), ("redis", "base")])
def test_both_ways_to_see_reads_agree(trials, workload, variant):
    """Older kernels have only the second, so here it has to see what the first one does."""
    if reads.tracepoint() != reads.TRACEPOINTS[0]:
        pytest.skip("this kernel has only the second one")
    with ExitStack() as stack:
        second, seen = LocalityProbe(stack, reads.TRACEPOINTS[1]), []

        @contextmanager
        def meanwhile(server_pid, ports, scratch):
            second.watch(server_pid, ports)
            before = second.read()
            yield
            seen.append(Locality(*(now - was for now, was in zip(second.read(), before))))

        trial = measured(trials, workload, variant, meanwhile)
    (locality,) = seen
    if workload == "haproxy":  # each connection has one request
        under_way = limits.read().connections_per_core * len(ALL_CPUS)  # as the counting begins and ends
        assert locality.accepts == pytest.approx(locality.passive_reads, abs=under_way)
    assert locality.passive_reads >= 0.99 * trial.metrics[WORKLOADS[workload].metric] * trial.seconds
    shares = {name: value for name, value in trial.metrics.items() if name.endswith("_local_percent")}
    assert len(shares) == (3 if workload == "haproxy" else 2)
    assert locality.percentages() == pytest.approx(shares, abs=1)


def test_a_trial_without_probes_has_what_they_do_not_tell(trials):
    unobserved, after = (measured(trials, "haproxy", variant).metrics for variant in ("unobserved", "base"))
    assert unobserved["cps"] > 0
    assert not any("local" in name for name in unobserved)
    assert after["passive_local_percent"] == BY_CHANCE


class Looking(Nginx):
    """nginx, and what these settings are while it runs."""

    name = "looking"

    def __init__(self, settings):
        self._settings = settings

    def now(self, testbed) -> dict[str, str]:
        """In the server's network namespace; those of the whole machine are in the first one only."""
        with inside(testbed.server) if self._settings == VARIANTS["no-direct-tcp"].sysctls else nullcontext():
            return {name: Path("/proc/sys", name).read_text().strip() for name in self._settings}

    def rehearse(self, testbed, cpus) -> float:
        self.testbed, self.meanwhile = testbed, self.now(testbed)
        return 0.0


@pytest.mark.needs(f"/proc/sys/{SKB_DEFER_MAX}")
@pytest.mark.parametrize("variant", ["no-skb-pool", "no-direct-tcp", "busy-poll"])
def test_what_the_kernel_does_by_itself_is_off_for_a_trial_only(trials, monkeypatch, variant):
    switched = {**VARIANTS[variant].sysctls, **VARIANTS[variant].machine_sysctls}
    looking = Looking(switched)
    monkeypatch.setitem(WORKLOADS, looking.name, looking)
    machine = Path("/proc/sys", SKB_DEFER_MAX).read_text()
    measured(trials, looking.name, variant)
    assert looking.meanwhile == switched
    assert looking.now(looking.testbed) != switched
    assert Path("/proc/sys", SKB_DEFER_MAX).read_text() == machine != "0\n"
