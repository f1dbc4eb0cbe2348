"""lab.py sweep --cluster: whole blocks go to testbeds, and each testbed is one value of the statistics."""

import json
import math
import os
import platform
import shutil
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from analysis.estimates import estimate
from analysis.report import warnings
from analysis.testbeds import by_testbed
from bench.schedule import schedule
from bench.sweep import UsageError, measure
from fastsocket.processes import family
from records.run import Circumstances, LostBlock, read_run, write_run
from records.trials import TRIALS, read_trials
from setup import bootstrap
from setup.fingerprint import code
from tests.harness.commands import LAB, assert_one_line, lab
from tests.harness.cpus import NEEDS_TWO_CPUS
from tests.harness.patience import patient
from tests.harness.runs import a_run, a_trial, trials_of
from tests.harness.sshd import sshd
from tests.harness.waiting import ending, wait_until
from topologies.namespace import inside
from workloads.process import WorkloadError

pytest.importorskip("distributed", reason="Dask is not here: python3 lab.py test installs it")

import psutil
from distributed import LocalCluster, get_worker

from bench import cluster, worker
from bench.block import Block, Task
from bench.cluster import ATTEMPTS, DIED, Cluster, ClusterError

BLOCKS = 6


# ---- the schedule: what is measured where


def invented(task: str) -> str:
    """A block, as a testbed would measure it. Block 1 fails on the first testbed that gets it, and block 99 on all."""
    asked, here = Task.model_validate_json(task), f"here-{get_worker().name}"
    number = asked.slots[0].block
    if number == 99 or (number == 1 and not asked.run.lost_blocks):
        raise WorkloadError("no server starts here")
    trials = [a_trial(slot, 1000.0, {"testbed": here}) for slot in asked.slots]
    return Block(name=here, testbed=some_circumstances(), trials=trials, left_out={}).model_dump_json()


def some_circumstances(**told) -> Circumstances:
    run = a_run()
    return Circumstances(fingerprint={"kernel": "6.18", **told}, versions={}, placements=run.placements, unavailable={})


@pytest.fixture
def scheduler():
    """With three workers, which say that they are testbeds."""
    told = {"host": "here", "cpus": 2, "code": code()}
    with LocalCluster(
        n_workers=ATTEMPTS,
        threads_per_worker=1,
        processes=False,
        dashboard_address=None,
        startup_information={"testbed": lambda worker: told},
    ) as started:
        yield started


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def testbeds(scheduler, said):
    with cluster.Client(scheduler) as client:
        yield Cluster(client, said.append, invented)


def begun(directory: Path, **changes):
    """A run without a trial yet."""
    run = a_run(blocks=BLOCKS, complete=False, **changes)
    directory.mkdir()
    write_run(directory, run)
    return run


def test_each_block_is_whole_and_of_one_testbed_and_one_that_fails_gets_no_more(tmp_path, testbeds, said):
    directory, shown = tmp_path / "run", []
    testbeds.measure(directory, begun(directory), time.monotonic(), shown.append)
    run, trials = read_run(directory), read_trials(directory)
    assert sorted(trial.index for trial in trials) == [slot.index for slot in schedule(run.options)]
    assert shown == trials and run.complete
    assert set(Counter(block for block, _ in {(trial.block, trial.testbed) for trial in trials}).values()) == {1}
    assert {trial.testbed for trial in trials} == run.testbeds.keys()
    assert [(lost.block, lost.why) for lost in run.lost_blocks] == [(1, "no server starts here")]
    assert len(testbeds.workers()) == ATTEMPTS - 1
    assert "gets no more blocks: no server starts here" in said[0] and "block 1 is measured once more" in said[1]
    assert any("Block 1 was begun once more" in warning for warning in warnings(run, trials))


def test_a_run_goes_on_with_the_blocks_that_it_lacks(tmp_path, testbeds):
    directory = tmp_path / "run"
    testbeds.measure(directory, begun(directory), time.monotonic(), lambda trial: None)
    first, *others = (directory / TRIALS).read_text().splitlines(keepends=True)
    block = json.loads(first)["block"]
    kept = [line for line in [first, *others] if json.loads(line)["block"] == block]
    (directory / TRIALS).write_text("".join(kept))
    shown = []
    testbeds.measure(directory, read_run(directory), time.monotonic(), shown.append)
    assert len(shown) == len(others) + 1 - len(kept) and block not in {trial.block for trial in shown}
    assert len({trial.index for trial in read_trials(directory)}) == len(others) + 1
    with pytest.raises(UsageError, match="go on with --cluster"):
        measure(directory, read_run(directory), time.monotonic(), lambda trial: None)


def test_a_block_that_no_testbed_can_measure_ends_the_run_which_keeps_the_others(tmp_path, testbeds, monkeypatch):
    directory = tmp_path / "run"
    run = begun(directory)
    monkeypatch.setattr(cluster, "remaining", lambda *_: with_a_bad_block(run))
    with pytest.raises(ClusterError, match=f"block 99 was lost {ATTEMPTS} times, at last on here: no server starts"):
        testbeds.measure(directory, run, time.monotonic(), lambda trial: None)
    assert {trial.block for trial in read_trials(directory)} <= {0} and len(read_run(directory).lost_blocks) == ATTEMPTS


def with_a_bad_block(run):
    first = [slot for slot in schedule(run.options) if slot.block == 0]
    return [*first, *(type(slot)(**{**vars(slot), "block": 99}) for slot in first)]


@pytest.mark.parametrize(
    "told, words",
    [
        ({"code": "another"}, "its checkout is another, and this one "),
        ({"cpus": 1}, "it may use 1, and the sweep asks for 2"),
        (None, "it was not started by lab.py worker"),
    ],
)
def test_a_worker_that_would_measure_something_else_is_refused(scheduler, told, words):
    here = told and {"host": "elsewhere", "cpus": 2, "code": code(), **told}
    for one in scheduler.scheduler.workers.values():
        one.extra["testbed"] = here
    with (
        pytest.raises(ClusterError, match=words),
        cluster.cluster(scheduler.scheduler_address, [a_run().options], print),
    ):
        pass


def test_an_address_without_a_scheduler_is_named(monkeypatch):
    monkeypatch.setattr(worker, "SECONDS", 0.2)
    with (
        pytest.raises(ClusterError, match="no scheduler answers at tcp://127"),
        cluster.cluster("tcp://127.0.0.1:1", [a_run().options], print),
    ):
        pass


def test_dask_is_installed_for_those_who_ask_for_it(tmp_path, monkeypatch):
    monkeypatch.setattr(bootstrap, "CLUSTER_STAMP", tmp_path / "cluster-from")
    for asked in (["sweep", "--cluster", "2"], ["--yes", "sweep", "--cluster=2"], ["worker", "tcp://host:1"], ["test"]):
        assert bootstrap.lacks_cluster(asked)
    assert not bootstrap.lacks_cluster(["sweep"]) and not bootstrap.lacks_cluster([])
    bootstrap.CLUSTER_STAMP.write_text(bootstrap.CLUSTER.read_text())
    assert not bootstrap.lacks_cluster(["worker", "tcp://host:1"])


def test_what_is_no_cluster_is_named_in_one_line(tmp_path):
    assert_one_line(lab("sweep", "--cluster", "a,", "--out", str(tmp_path / "run")), 2, "'a,'", "root@a,root@b")
    with pytest.raises(UsageError, match="each worker gets 0"), cluster.cluster("1000", [a_run().options], print):
        pass


# ---- what trials of several testbeds say


def test_each_testbed_is_one_value(tmp_path):
    """Fastsocket brings 10 % on one, 20 % on the next, 30 % on the third; each testbed is precise to 0.5 %."""
    noise, run = np.random.default_rng(1), a_run(blocks=30, cores=[2])
    brings = [math.log(1.1), math.log(1.2), math.log(1.3)]
    trials = [
        a_trial(
            slot,
            1000
            * (1 + slot.block % 3)
            * math.exp(brings[slot.block % 3] * (slot.variant == "fastsocket") + noise.normal(0, 0.005)),
            {"testbed": f"host{slot.block % 3}-abc"},
        )
        for slot in schedule(run.options)
    ]
    assert ratio(trials) == pytest.approx((1.198, 0.97, 1.48), abs=0.03)
    two = [trial for trial in trials if trial.block % 3]
    assert ratio(two)[0] == pytest.approx(1.249, abs=0.01) and math.isnan(ratio(two)[1])
    one = [trial for trial in trials if not trial.block % 3]
    assert ratio(one) == pytest.approx((1.1, 1.1, 1.1), abs=0.01)
    named = {name: some_circumstances(cpu=name) for name in {trial.testbed for trial in trials}}
    run = run.model_copy(update={"testbeds": named, "lost_blocks": [LostBlock(block=3, host="host1", why="it died")]})
    table = by_testbed(run, trials)
    assert list(table[table.variant == "fastsocket"].testbed) == ["host0-abc", "host1-abc", "host2-abc"]
    told = " ".join(warnings(run, trials))
    assert "they differ in cpu" in told and "on host1: it died" in told
    assert "2 testbeds tell too little" in " ".join(warnings(run, two))


def ratio(trials) -> tuple[float, float, float]:
    rows = estimate(trials)
    (row,) = rows[(rows.variant == "fastsocket") & (rows.metric == "cps")].itertuples()
    return row.ratio_to_base, row.ratio_low, row.ratio_high


def test_a_block_that_two_testbeds_measured_in_part_is_no_pair():
    run = a_run(blocks=1, cores=[1])
    half = len(schedule(run.options)) // 2
    trials = [
        trial.model_copy(update={"testbed": "one" if place < half else "another"})
        for place, trial in enumerate(trials_of(run))
    ]
    assert math.isnan(ratio(trials)[0])


# ---- real workers


@pytest.mark.privileged
@NEEDS_TWO_CPUS
def test_a_worker_that_dies_loses_its_block_alone_and_ctrl_c_leaves_nothing(tmp_path):
    directory = tmp_path / "run"
    arguments = ["--workload", "nginx", "--variant", "base", "--cores", "1", "--blocks", "3", "--seconds", "1"]
    with subprocess.Popen([*LAB, "sweep", "--cluster", "2", *arguments, "--no-report", "--out", directory]) as sweep:
        wait_until(lambda: len(measuring(sweep)) == 2, "two workers measure", patient(60))
        first, second = measuring(sweep)
        with ending(family(first)):
            os.kill(first, signal.SIGKILL)
        wait_until(lambda: read_trials(directory), "a block is recorded", patient(60))
        wait_until(lambda: measuring(sweep), "the next block has begun")
        with ending(family(second)):
            sweep.send_signal(signal.SIGINT)
            assert sweep.wait(patient(30)) == 130
    run, trials = read_run(directory), read_trials(directory)
    assert [lost.why for lost in run.lost_blocks] == [DIED] and not run.complete
    assert {trial.block: trial.failed for trial in trials} == {trials[0].block: ""} and len(trials) == 4
    ((name, testbed),) = run.testbeds.items()
    assert {trial.testbed for trial in trials} == {name} and name.startswith(f"{platform.node()}-")
    assert all(len(placement.server_cpus) == 1 for placement in testbed.placements)


@pytest.fixture
def far(testbed, tag, tmp_path, monkeypatch) -> str:
    """Another machine with this checkout, by what ssh calls it. Afterwards nothing runs there."""
    with sshd(testbed, tag, tmp_path, hidden=("/run",)) as (path, _):
        monkeypatch.setenv("PATH", path)
        with inside(testbed.server):
            yield f"root@{testbed.client.IP()}"


FAR = ["sweep", "--workload", "nginx", "--variant", "base", "--cores", "1", "--blocks", "1", "--seconds", "1"]


@pytest.mark.privileged
def test_a_worker_is_started_on_another_machine(far, tmp_path):
    done = lab(*FAR, "--cluster", far, "--no-report", "--out", str(tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    run, trials = read_run(tmp_path / "run"), read_trials(tmp_path / "run")
    assert run.complete and len(trials) == 4 and not any(trial.failed for trial in trials)
    assert {trial.testbed for trial in trials} == run.testbeds.keys() and len(run.testbeds) == 1


@pytest.mark.privileged
def test_a_machine_that_takes_no_key_of_ours_is_named(far, tmp_path):
    shutil.copy(tmp_path / "other", tmp_path / "key")
    assert_one_line(lab(*FAR, "--cluster", far, "--out", str(tmp_path / "run")), 3, far, "ssh-copy-id")


def measuring(sweep: subprocess.Popen) -> list[int]:
    """Its workers that have a testbed: the parents of the parents of a testbed's hosts."""
    parent = {one.pid: one.info for one in psutil.process_iter(["ppid", "cmdline"])}
    hosts = [one for one in parent.values() if "mininet:server" in (one["cmdline"] or [])]
    workers = [parent[host["ppid"]]["ppid"] for host in hosts if host["ppid"] in parent]
    return [pid for pid in workers if parent.get(pid, {}).get("ppid") == sweep.pid]
