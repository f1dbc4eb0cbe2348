"""The servers as the lab runs them, each in its network, as every variant that it has."""

import os
import signal
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from fastsocket import shared_memory
from setup.peers import needs as needs_of_peers
from tests.harness.patience import PATIENCE, patient
from tests.harness.waiting import wait_until
from topologies.tag import RunTag
from topologies.testbed import Testbed
from workloads import WORKLOADS, http
from workloads.instances import together
from workloads.load import Demand, Load
from workloads.nginx import Nginx
from workloads.nginx_kept import CONNECTIONS
from workloads.process import WorkloadError
from workloads.readiness import listening_inodes
from workloads.variants import VARIANTS
from workloads.workload import Cpus, Workload

ALL = sorted(os.sched_getaffinity(0))
CPUS = Cpus(server=ALL, load=ALL)
# What servers are started as: variants that differ only in what happens around the server are tried once, and those of
# tests/test_peers.py and tests/test_pressure.py there.
WAYS = {
    (variant.own_reuseport, variant.preload): variant.name
    for variant in reversed(VARIANTS.values())
    if not (variant.way or variant.attached or variant.by_program)
}.values()
# Two servers are tried with each switch of the library, alone and with others; the rest without it, with it, it off.
WITH_EACH_SWITCH = ("nginx", "haproxy")
PLAIN = (None, VARIANTS["off"].preload, VARIANTS["fastsocket"].preload)
PLAIN_WAYS = [way for way in WAYS if VARIANTS[way].preload in PLAIN]
OWN = [name for name in WORKLOADS if name not in needs_of_peers() and not name.startswith(("haproxy-", "nginx-"))]
RUNS = [
    (name, way)
    for name in OWN
    for way in (WAYS if name in WITH_EACH_SWITCH else PLAIN_WAYS)
    if not WORKLOADS[name].why_not(VARIANTS[way])
]

pytestmark = [pytest.mark.privileged, pytest.mark.timeout(60)]


@pytest.fixture(scope="module")
def testbeds():
    """By topology, made when first asked for."""
    with ExitStack() as stack:
        tag, made = stack.enter_context(RunTag()), {}

        def testbed(topology) -> Testbed:
            if topology not in made:
                made[topology] = stack.enter_context(Testbed(topology(), tag, queues=len(ALL)))
            return made[topology]

        yield testbed


@pytest.fixture
def served(testbeds, tmp_path):
    """Runs a workload as a variant."""
    tmp_path.chmod(0o755)

    @contextmanager
    def serve(name: str, variant: str, cpus: Cpus = CPUS):
        workload = WORKLOADS[name]
        testbed = testbeds(workload.topology)
        with (
            TemporaryDirectory(dir=tmp_path) as directory,
            workload.serve(testbed, VARIANTS[variant], cpus, Path(directory)) as pids,
        ):
            yield workload, testbed, pids

    return serve


@pytest.mark.slow
@pytest.mark.parametrize("name, variant", RUNS)
def test_it_serves_its_load(served, name, variant):
    with served(name, variant) as (workload, testbed, pids):
        load = workload.load(testbed, CPUS, Demand(1, pace=workload.rehearse(testbed, CPUS)))
        accepted = accepted_by(pids) if VARIANTS[variant].has_local_listeners else None
    assert load.requests > 1000 / PATIENCE
    assert sum(load.errors.values()) == 0
    assert 0.5 < load.seconds < patient(10)
    assert 0 < load.cpu_seconds < patient(10) * len(ALL)
    assert load.latency_ms["max"] >= load.latency_ms.get("99", 0) >= load.latency_ms.get("50", 0) >= 0
    if accepted is not None and workload.metric == "cps":
        assert accepted >= load.requests


@pytest.mark.slow
def test_one_request_in_a_hundred_of_nginx_slow_is_slow(served):
    with served("nginx-slow", "base") as (workload, testbed, _):
        load = workload.load(testbed, CPUS, Demand(2, rate=500))
    assert sum(load.errors.values()) == 0
    assert load.latency_ms["99.9"] > 10 > load.latency_ms["50"] / PATIENCE


@pytest.mark.slow
@pytest.mark.parametrize("rate", [None, 500])
def test_the_connections_of_nginx_kept_stay_open(served, rate):
    with served("nginx-kept", "fastsocket") as (workload, testbed, pids):
        before = accepted_by(pids)
        load = workload.load(testbed, CPUS, Demand(1, rate=rate))
        assert accepted_by(pids) - before == CONNECTIONS
    assert load.requests > 100
    assert sum(load.errors.values()) == 0


def accepted_by(pids: list[int]) -> int:
    counted = [cpu for pid in pids for cpu in shared_memory.counters(pid)]
    return sum(cpu.accepted_local + cpu.accepted_global + cpu.accepted_neighbour for cpu in counted)


@pytest.mark.parametrize("name", OWN)
def test_it_leaves_nothing_that_listens(served, name):
    """Its next trial starts at once, and needs the same ports."""
    for _ in range(2):
        with served(name, "base", Cpus(server=ALL[:1], load=ALL)) as (workload, testbed, pids):
            assert all(listening_inodes(port, pids[0]) for port in workload.ports(Cpus(ALL[:1], ALL)))
        assert not any(listening_inodes(port, testbed.server.pid) for port in workload.ports(CPUS))


@pytest.mark.parametrize(
    "variant, expected", [("base", 1), ("latest", len(ALL)), ("fastsocket", 1 + len(ALL)), ("off", 1)]
)
@pytest.mark.parametrize("name", ["nginx", "haproxy"])
def test_each_variant_has_its_listeners(served, name, variant, expected):
    """Twice, because they listen on IPv4 and on IPv6."""
    with served(name, variant) as (_, _, pids):
        wait_until(lambda: len(listening_inodes(http.PORT, pids[0])) == 2 * expected, f"{expected} listen on each")


@pytest.mark.parametrize("name", OWN)
def test_every_tool_has_a_version(name):
    versions = WORKLOADS[name].versions()
    assert versions and all(any(letter.isdigit() for letter in said) for said in versions.values())


def test_an_answer_of_a_proxy_without_its_backend_is_an_error_and_no_request_served(served):
    """HAProxy says 503 quickly: counted as served, a broken proxy would be the fastest."""
    with served("haproxy", "base") as (workload, testbed, _):
        (backend,) = [int(pid) for pid in os.listdir("/proc") if pid.isdigit() and is_master_of(int(pid), testbed)]
        os.kill(backend, signal.SIGTERM)
        load = workload.load(testbed, CPUS, Demand(1))
    assert load.requests < load.errors["status"]


@pytest.mark.alone
@pytest.mark.slow
@pytest.mark.parametrize("name", ["nginx", "haproxy", "redis", "memcached"])
def test_a_rate_is_kept_to(served, name):
    with served(name, "base") as (workload, testbed, _):
        load = at_a_rate(workload, testbed, Demand(2, rate=1000 / PATIENCE))
    assert 700 / PATIENCE < load.requests / load.seconds < 1200 / PATIENCE
    assert sum(load.errors.values()) == 0
    assert 0 < load.latency_ms["50"] <= load.latency_ms["99"] <= load.latency_ms["max"]


def at_a_rate(workload: Workload, testbed: Testbed, demand: Demand, tries: int = 3) -> Load:
    """On a machine that has other work, the load generator may say that it could not keep to its schedule."""
    for _ in range(tries - 1):
        with suppress(WorkloadError):
            return workload.load(testbed, CPUS, demand)
    return workload.load(testbed, CPUS, demand)


@pytest.mark.alone
def test_an_answer_that_is_not_the_right_one_is_an_error(served, monkeypatch):
    wrong = replace(WORKLOADS["redis"].dialogue(), begins="$63\r\n")
    monkeypatch.setattr(WORKLOADS["redis"], "dialogue", lambda: wrong)
    with served("redis", "base") as (workload, testbed, _):
        load = workload.load(testbed, CPUS, Demand(1, rate=200))
    assert load.requests == 0 < load.errors["wrong"]


def is_master_of(pid: int, testbed: Testbed) -> bool:
    """Whether it is the nginx master in the backend's network."""
    try:
        with open(f"/proc/{pid}/cmdline") as command:
            return command.read().startswith("nginx: master") and os.readlink(f"/proc/{pid}/ns/net") == os.readlink(
                f"/proc/{testbed.backend.pid}/ns/net"
            )
    except OSError:  # it has just ended
        return False


def test_a_server_that_does_not_start_says_why_in_its_own_words(served, monkeypatch):
    monkeypatch.setattr("workloads.nginx.CONFIGURATION", "events {{ }} nonsense;")
    wanted = r'nginx does not start: .*unknown directive "nonsense"'
    with pytest.raises(WorkloadError, match=wanted), served("nginx", "base"):
        pass


def test_a_tool_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(WorkloadError, match="nginx is not installed"):
        Nginx().versions()


def test_the_object_has_the_size_of_the_original():
    assert len(http.OBJECT) == 64


def test_rates_of_instances_add_up():
    loads = [
        Load(requests=100, seconds=1.0, latency_ms={"50": 1.0, "max": 9.0}, errors={}, cpu_seconds=0.0),
        Load(requests=300, seconds=2.0, latency_ms={"50": 3.0, "max": 5.0}, errors={}, cpu_seconds=0.0),
    ]
    both = together(loads, cpu_seconds=0.5)
    assert both.requests / both.seconds == pytest.approx(100 / 1.0 + 300 / 2.0)
    assert both.latency_ms == {"50": 2.0, "max": 9.0}
    assert (both.requests, both.cpu_seconds) == (400, 0.5)
