"""A proxy beside connections that are open already, and one that keeps its own."""

import socket

import pytest

from bench.schedule import Slot
from bench.sweep import bench
from records.metrics import CONNECT_P50, CONNECT_P90
from records.run import Placement
from tests.harness.cpus import ALL_CPUS, NEEDS_TWO_CPUS
from tests.harness.locality import ALL
from topologies import queue_threads
from topologies.namespace import inside
from topologies.proxy import Proxy
from topologies.testbed import Testbed
from workloads.pressure import holding
from workloads.pressure.held import PER_ADDRESS, PORTS, sources
from workloads.process import WorkloadError
from workloads.variants import VARIANTS
from workloads.workload import Cpus

PLACEMENT = Placement(cores=len(ALL_CPUS), server_cpus=ALL_CPUS, load_cpus=ALL_CPUS)
WORKLOADS = ["haproxy-0", "haproxy-50k", "nginx-proxy-kept", "nginx-file"]

pytestmark = [pytest.mark.timeout(60)]


@pytest.mark.parametrize("even_first", [True, False])
def test_no_two_connections_have_the_same_address_and_port(even_first):
    """Those of the kernel have every even port before an odd one."""
    taken = list(sources(2 * PER_ADDRESS + 1, even_first))
    assert len(taken) == len({*taken}) == 2 * PER_ADDRESS + 1
    assert {address for address, _ in taken} == {"", "10.255.0.1", "10.255.0.2"}
    odd = sum(port % 2 for address, port in taken if not address)
    assert (odd == PER_ADDRESS - len(PORTS) // 2) is even_first


@pytest.fixture(scope="module")
def trials():
    with bench(WORKLOADS, len(ALL_CPUS), queue_threads.choose(None)) as (made, _):
        yield made


def kernels_port(testbed: Testbed) -> int:
    """Of a new connection of the server's host to the backend, where nothing listens."""
    with inside(testbed.server), socket.socket() as one:
        one.setblocking(False)
        one.connect_ex((testbed.backend.IP(), 80))
        return one.getsockname()[1]


@pytest.mark.privileged
def test_open_connections_have_the_ports_that_the_kernel_would_have_taken(trials):
    """It takes an odd port once every even one is taken, and an even one again when they have ended."""
    testbed, cpus = trials._testbeds[Proxy, 0], Cpus(ALL_CPUS, ALL_CPUS)
    assert kernels_port(testbed) % 2 == 0
    with holding(testbed, VARIANTS["base"], cpus, len(PORTS) // 2 + 1):
        assert kernels_port(testbed) % 2 == 1
    with holding(testbed, VARIANTS["fastsocket"], cpus, 100):
        assert kernels_port(testbed) % 2 == 0
    assert kernels_port(testbed) % 2 == 0
    with (
        pytest.raises(WorkloadError, match=r"more than half of the \d+ MB here"),
        holding(testbed, VARIANTS["base"], cpus, 10**9),
    ):
        pass


@pytest.mark.slow
@pytest.mark.privileged
@NEEDS_TWO_CPUS
def test_a_proxy_under_pressure_serves_and_its_connects_are_timed(trials):
    slot = Slot(0, 0, "haproxy-50k", "fastsocket", False, len(ALL_CPUS))
    metrics = trials.run(slot, PLACEMENT, seconds=1).metrics
    assert 0 < metrics[CONNECT_P50] <= metrics[CONNECT_P90]
    assert metrics["cps"] > 0 == metrics["errors"]
    assert metrics["active_local_percent"] > 75  # the library finds no free port of its own for one in eight


@pytest.mark.slow
@pytest.mark.privileged
@NEEDS_TWO_CPUS
def test_connections_that_are_kept_stay_on_their_cores(trials):
    trial = trials.run(Slot(0, 0, "nginx-proxy-kept", "fastsocket", False, len(ALL_CPUS)), PLACEMENT, seconds=1)
    assert trial.metrics["active_local_percent"] >= ALL and trial.metrics["errors"] == 0
    assert sum(cpu.delivered for cpu in trial.library) < trial.metrics["cps"] * trial.seconds / 5


@pytest.mark.slow
@pytest.mark.privileged
def test_a_file_is_served_whole(trials):
    trial = trials.run(Slot(0, 0, "nginx-file", "sendfile", False, len(ALL_CPUS)), PLACEMENT, seconds=1)
    assert trial.metrics["cps"] > 0 == trial.metrics["errors"]
