"""A load generator on another machine, over SSH: an sshd in the network and mount namespaces of a testbed's client."""

import os
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from bench.experiment import UsageError, plan
from bench.schedule import Slot
from bench.sweep import bench
from bench.two_hosts import hosts_for, on_two_hosts
from fastsocket.processes import children, family
from records.run import Placement
from setup.bootstrap import ROOT
from tests.harness.commands import LAB, assert_one_line, lab
from tests.harness.cpus import ALL_CPUS
from tests.harness.patience import patient
from tests.harness.sshd import sshd
from tests.harness.waiting import wait_until
from topologies.namespace import inside
from topologies.ssh import HostError
from topologies.tag import RunTag
from topologies.two_hosts import TwoHosts
from workloads import generator

START_SECONDS = patient(60)  # of a lab, on a busy machine
# As on another machine, nothing of the lab is there, nor of root's home.
HIDDEN = (f"{ROOT}/workloads", "/root", "/run")
KILLED = """
import os, signal, subprocess, sys
from pathlib import Path
from topologies.tag import RunTag
from topologies.two_hosts import TwoHosts
with RunTag() as tag, TwoHosts(tag, sys.argv[1], "127.0.0.1", {}) as hosts:
    program = hosts.client.command(hosts.client.cpus, ["sh", "-c", "echo runs; exec sleep 1000"])
    with subprocess.Popen(program, stdout=subprocess.PIPE) as run:
        run.stdout.readline()
        os.kill(os.getpid(), signal.SIGKILL)
"""

pytestmark = [pytest.mark.privileged, pytest.mark.timeout(60)]


@pytest.fixture
def far(testbed, tag, tmp_path, monkeypatch):
    """The sshd, to which the commands' ssh has a key. Afterwards nothing else is left in its namespaces."""
    with sshd(testbed, tag, tmp_path, HIDDEN) as (path, served):
        monkeypatch.setenv("PATH", path)
        yield served


@pytest.fixture
def name(testbed) -> str:
    """Of the client, for ssh."""
    return f"root@{testbed.client.IP()}"


@pytest.mark.parametrize(
    "experiment, chosen, words",
    [
        ("scalability", {}, "haproxy needs a third host"),
        ("scalability-redis", {}, "redis is loaded from this machine alone"),
        ("scalability-nginx", {"variants": ["base", "rfs", "atr", "table-1k"]}, "rfs, atr, table-1k needs a NIC"),
        ("packets", {"workloads": ["nginx"]}, "packets needs a NIC or a network of its own"),
    ],
)
def test_what_needs_a_testbed_of_the_lab_is_refused(experiment, chosen, words):
    with pytest.raises(UsageError, match=words):
        on_two_hosts(plan(experiment, "quick", **chosen), "user@host", "127.0.0.1")


def test_the_address_has_to_be_ours():
    with pytest.raises(UsageError, match=r"203\.0\.113\.1: no IPv4 address of this machine"):
        on_two_hosts(plan("scalability-nginx", "quick"), "user@host", "203.0.113.1")


@contextmanager
def two_hosts(testbed, name, programs):
    with inside(testbed.server), RunTag() as tag, TwoHosts(tag, name, testbed.server.IP(), programs) as made:
        yield made


@pytest.mark.alone
def test_a_server_is_loaded_from_another_machine(testbed, far, name):
    """By both load generators, of which the other machine has one; the other one is copied there."""
    generator.build()
    cpu = ALL_CPUS[0]
    slot, placement = Slot(0, 0, "nginx", "base", False, 1), Placement(cores=1, server_cpus=[cpu], load_cpus=[])
    with inside(testbed.server):
        options = on_two_hosts(plan("scalability-nginx", "quick"), name, testbed.server.IP())
        with bench(["nginx"], 1, options.nic, two_hosts=partial(hosts_for, options)) as (trials, _):
            full, paced = (trials.run(slot, placement, seconds=1, rate=rate) for rate in (None, 200))
    assert trials.client["client"] == name and "wrk" in trials.client["client's wrk"]
    for trial in (full, paced):
        assert trial.metrics["cps"] > 50 and trial.metrics["latency_p99_ms"] > 0
        assert sum(trial.load_errors.values()) == trial.load_cpu_seconds == 0
        assert [use.cpu for use in trial.cpu] == ALL_CPUS
        assert trial.spent["server"] > trial.spent["client"] >= 0
        assert "packets_in_per_request" in trial.unavailable.keys() - trial.metrics.keys()


@pytest.mark.parametrize(
    "file, words, programs",
    [
        ("key", "Permission denied .*ssh-copy-id root@", {}),
        ("known", "Host key verification failed.*; ssh root@.* shows the host's key", {}),
        ("", "no-such-loader is not on root@.*: install Debian's package loaders there", {"no-such-loader": "loaders"}),
    ],
    ids=["wrong key", "unknown host", "missing program"],
)
def test_a_machine_that_cannot_be_used_is_named_with_the_remedy(testbed, far, name, tmp_path, file, words, programs):
    if file:
        shutil.copy(tmp_path / "other", tmp_path / file)
    with pytest.raises(HostError, match=words) as refused, two_hosts(testbed, name, programs):
        pass
    assert "\n" not in str(refused.value) and refused.value.exit_status == 3


def test_an_address_that_the_other_machine_does_not_reach_is_named(testbed, far, name):
    with two_hosts(testbed, name, {}) as hosts, pytest.raises(HostError, match=f"{name} has no answer from 127.0.0.1"):
        hosts.client.ask("127.0.0.1", 80, b"?", seconds=2)


def test_a_connection_that_is_lost_ends_the_run_with_one_line(testbed, far, name, tmp_path):
    options = ["--workload", "nginx", "--variant", "base", "--cores", "1", "--seconds", "30", "--out", tmp_path / "run"]
    hosts = ["--client", name, "--server-address", testbed.server.IP()]
    command = ["mnexec", "-a", str(testbed.server.pid), *LAB, "sweep", *options, *hosts]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        wait_until(lambda: any(map(is_load, family(far.pid))), "the load has begun", START_SECONDS)
        (connection,) = children(far.pid)
        os.kill(connection, signal.SIGKILL)
        out, err = run.communicate()
    done = subprocess.CompletedProcess(command, run.returncode, out, err)
    assert_one_line(done, 3, f"the connection to {name} was lost", "--resume")


def is_load(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().startswith("wrk\0--threads")
    except OSError:  # it has just ended
        return False


@pytest.mark.alone
def test_what_runs_there_ends_with_a_lab_that_is_killed(testbed, far, name):
    """The fixture sees to it."""
    command = ["mnexec", "-a", str(testbed.server.pid), sys.executable, "-c", KILLED, name]
    assert subprocess.run(command, cwd=ROOT).returncode == -signal.SIGKILL
    assert "removed what a killed run left" in lab("clean").stdout
