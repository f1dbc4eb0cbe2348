"""Profiles: recorded and folded by the real perf, then shown."""

import json
import re
import subprocess
import sys
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.profile.flamegraph import flame_graph
from analysis.profile.flat import flat, merged, profiles
from analysis.profile.speedscope import speedscope
from bench.profile import fold, profiled, recording
from records.profile import IDLE, OTHER, SERVER, Stack, read_stacks, stacks_path, write_stacks
from records.run import read_run
from records.trials import read_trials
from setup.bootstrap import ROOT
from tests.harness.commands import lab
from workloads.process import WorkloadError

NAMES = (
    st.text(
        st.characters(blacklist_categories=["Cs", "Cc"], blacklist_characters=";\r\n\t\x85\u2028\u2029"),
        min_size=1,
        max_size=12,
    )
    .map(str.strip)
    .filter(bool)
)
STACKS = st.lists(
    st.builds(
        Stack,
        st.integers(1, 10**6),
        st.sampled_from([SERVER, IDLE, OTHER]),
        NAMES,
        NAMES,
        st.lists(NAMES, min_size=1, max_size=6).map(";".join),
    ),
    min_size=1,
    max_size=20,
)
BUSY = "import os, time\nwhile time.process_time() < 0.5: os.stat('/proc/self/status')"


@pytest.mark.privileged
def test_perf_sees_a_busy_process_and_folds_to_where_it_was(tmp_path):
    stacks = tmp_path / "stacks.tsv.gz"
    with (
        subprocess.Popen([sys.executable, "-c", f"input()\n{BUSY}"], stdin=subprocess.PIPE) as busy,
        profiled(stacks, busy.pid, range(80, 81), tmp_path),
    ):
        busy.communicate(b"perf has begun\n")
    stacks = read_stacks(stacks)
    ours = [stack for stack in stacks if stack.role == SERVER]
    assert sum(stack.samples for stack in ours) > 100
    assert any("do_syscall_64" in stack.frames for stack in ours)
    assert flat(stacks).percent.sum() == pytest.approx(100)


@pytest.mark.slow
@pytest.mark.privileged
def test_samples_are_all_there_after_folding(tmp_path):
    with recording(tmp_path / "perf.data"):
        subprocess.run([sys.executable, "-c", BUSY], check=True)
    raw = subprocess.run(["perf", "script", "-i", tmp_path / "perf.data", "-F", "comm"], capture_output=True, text=True)
    samples = [line for line in raw.stdout.splitlines() if line.strip()]
    assert sum(stack.samples for stack in fold(tmp_path / "perf.data")) == len(samples) > 100


@pytest.mark.privileged
def test_a_file_that_is_no_profile_is_said_to_be_none(tmp_path):
    (tmp_path / "perf.data").write_text("nothing of the kind")
    with pytest.raises(WorkloadError, match=r"perf.data: perf finds no samples in it"):
        fold(tmp_path / "perf.data")


@given(STACKS)
def test_what_is_written_is_read_again(tmp_path_factory, stacks):
    path = tmp_path_factory.mktemp("profile") / "stacks.tsv.gz"
    write_stacks(path, stacks)
    assert read_stacks(path) == stacks


@given(STACKS)
def test_a_flame_graph_is_xml_that_shows_all_that_was_not_idle(stacks):
    drawn = ElementTree.fromstring(flame_graph(stacks, "a <title> & more"))
    root = drawn.find(".//{*}g/{*}title")
    busy = sum(stack.samples for stack in stacks if stack.role != IDLE)
    assert root.text == f"all: {busy} samples, 100.00 %" if busy else root is None


@given(STACKS)
def test_a_speedscope_file_weighs_what_was_sampled(stacks):
    said = json.loads(speedscope({"one": stacks, "two": stacks[:1]}))
    frames = [frame["name"] for frame in said["shared"]["frames"]]
    one, two = said["profiles"]
    assert sum(one["weights"]) == one["endValue"] == sum(stack.samples for stack in stacks)
    assert ";".join(frames[index] for index in two["samples"][0]) == f"{stacks[0].command};{stacks[0].frames}"


@given(STACKS)
def test_merging_a_profile_with_itself_changes_no_percentage(stacks):
    once, twice = flat(merged([stacks])), flat(merged([stacks, stacks]))
    assert once.percent.tolist() == twice.percent.tolist()
    assert (2 * once.samples).tolist() == twice.samples.tolist()


@pytest.mark.slow
@pytest.mark.privileged
def test_lab_profiles_a_server(tmp_path):
    done = lab("profile", "nginx", "--variant", "base", "--seconds", "1", "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    run, trials = read_run(tmp_path / "run"), read_trials(tmp_path / "run")
    assert run.options.observes == "profile" and all(
        stacks_path(tmp_path / "run", trial.index).exists() for trial in trials
    )
    symbols = set(flat(merged([stacks for _, stacks in profiles(tmp_path / "run", trials)])).symbol)
    assert {"tcp_v4_rcv", "do_syscall_64"} <= symbols and "tcp_v4_rcv" in done.stdout
    assert (tmp_path / "run" / "figures" / "flame-nginx-base.svg").exists()
    assert "flame-nginx-base" in (tmp_path / "run" / "report.html").read_text()


@pytest.mark.slow
@pytest.mark.privileged
def test_what_folding_costs_is_compared_with_perfs_own_report():
    done = subprocess.run(
        [sys.executable, "-m", "tests.profile_cost", "--record", "2000"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    said = re.search(r"ours / perf report: (\S+) \((\S+) to (\S+) in 5 pairs\)", done.stdout)
    ratio, low, high = map(float, said.groups())
    assert 0 < low <= ratio <= high
