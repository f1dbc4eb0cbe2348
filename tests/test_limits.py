"""Limits from the environment, for slow machines."""

import os
import subprocess
import sys

import pytest

from bench.experiment import UsageError, plan
from bench.sweep import resumed_run
from records.run import write_run
from setup.bootstrap import ROOT
from tests.harness.runs import a_run
from workloads.limits import LimitError, Limits, changed, read


def test_what_is_not_said_is_as_usual():
    assert read({}) == Limits(grace_seconds=20, start_seconds=10, connections_per_core=100)
    assert changed(read({"FASTSOCKET_LAB_GRACE_SECONDS": "20"})) == {}


def test_what_is_said_is_known_to_have_been():
    limits = read({"FASTSOCKET_LAB_GRACE_SECONDS": "200", "FASTSOCKET_LAB_CONNECTIONS_PER_CORE": "10"})
    assert (limits.grace_seconds, limits.start_seconds, limits.connections_per_core) == (200, 10, 10)
    assert limits.answer_seconds == 20
    assert changed(limits) == {"grace_seconds": 200, "connections_per_core": 10}


def test_a_plan_keeps_them(monkeypatch):
    monkeypatch.setenv("FASTSOCKET_LAB_START_SECONDS", "60")
    assert plan("scalability", "quick").limits["start_seconds"] == 60


def test_a_run_goes_on_with_as_many_connections_as_it_began(tmp_path, monkeypatch):
    run = a_run(placements=[])
    write_run(
        tmp_path,
        run.model_copy(
            update={
                "options": run.options.model_copy(update={"limits": {"grace_seconds": 200, "connections_per_core": 10}})
            }
        ),
    )
    with pytest.raises(UsageError, match="10 connections per core: set FASTSOCKET_LAB_CONNECTIONS_PER_CORE=10"):
        resumed_run(tmp_path, run.options, frozenset())
    monkeypatch.setenv("FASTSOCKET_LAB_CONNECTIONS_PER_CORE", "10")
    assert resumed_run(tmp_path, run.options, frozenset()).options.limits["connections_per_core"] == 10


@pytest.mark.parametrize("value", ["", "0", "-1", "2.5", "soon", "²"])
def test_what_is_no_limit_is_named(value):
    with pytest.raises(LimitError, match=f"FASTSOCKET_LAB_START_SECONDS='{value}' is no whole .* leave it out for 10"):
        read({"FASTSOCKET_LAB_START_SECONDS": value})


def test_a_sweep_with_a_bad_one_ends_in_one_line():
    done = subprocess.run(
        [sys.executable, ROOT / "lab.py", "sweep", "--dry-run"],
        capture_output=True,
        text=True,
        env={**os.environ, "FASTSOCKET_LAB_GRACE_SECONDS": "long"},
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "FASTSOCKET_LAB_GRACE_SECONDS='long'" in done.stderr and done.stderr.count("\n") == 1
