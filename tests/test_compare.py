"""lab.py compare: two runs of the same experiment, and what it refuses."""

import json
import math

import numpy as np
import pytest

from analysis.compare import CompareError, compare
from records.metrics import COST
from records.run import write_run
from records.trials import append_trial
from tests.harness.commands import assert_one_line, lab
from tests.harness.runs import a_run, trials_of


def kept(directory, effect: float, run=None, seed=1, day=1.0):
    """A run in which fastsocket has so many times base's throughput. day: of the machine, for all variants."""
    run = run or a_run(blocks=10, cores=[2])
    noise = np.random.default_rng(seed)

    def cps(index, arm, cores):
        return 1000 * day * (effect if arm == "fastsocket" else 1) * math.exp(noise.normal(0, 0.02))

    directory.mkdir()
    write_run(directory, run)
    for trial in trials_of(run, cps):
        append_trial(directory, trial)
    return directory


def test_a_regression_is_found_and_a_slower_day_is_none(tmp_path):
    before, slower, worse = (
        kept(tmp_path / "before", 1.2),
        kept(tmp_path / "slower", 1.2, seed=2, day=0.6),
        kept(tmp_path / "worse", 1.05, seed=3),
    )
    assert not compare(before, slower, 0.95).regressions
    [found] = compare(before, worse, 0.95).regressions
    assert (found.workload, found.cores, found.variant, found.metric) == ("nginx", 2, "fastsocket", "cps")
    assert found.low < 1.05 / 1.2 < found.high < 0.95
    assert not compare(before, worse, 0.5).regressions and not compare(worse, before, 0.95).regressions


def test_at_a_rate_a_higher_cost_is_worse(tmp_path):
    run = a_run(blocks=10, cores=[2])
    run = run.model_copy(update={"options": run.options.model_copy(update={"rates": {"nginx": 1000}})})
    directories = []
    for name, effect in (("before", 0.8), ("after", 0.95)):
        directories.append(tmp_path / name)
        directories[-1].mkdir()
        write_run(directories[-1], run)
        for trial in trials_of(run):
            cost = 100 * (effect if trial.arm == "fastsocket" else 1) * (1 + trial.index % 7 / 1000)
            append_trial(directories[-1], trial.model_copy(update={"metrics": {**trial.metrics, COST: cost}}))
    [found] = compare(*directories, 0.95).regressions
    assert found.metric == COST and found.change == pytest.approx(0.8 / 0.95, rel=0.01)


def test_the_verb_says_it_in_words_in_json_and_by_its_exit_status(tmp_path):
    run = a_run(blocks=10, cores=[2], fingerprint={"kernel": "another", "load before": "9 9 9"})
    before, worse = kept(tmp_path / "before", 1.2), kept(tmp_path / "worse", 1.0, run=run)
    said = lab("compare", str(before), str(worse))
    assert said.returncode == 1 and not said.stderr
    assert "another machine or version: kernel was 6.18 <test> & more, and is another" in said.stdout
    assert "load before" not in said.stdout
    assert "nginx on 2 cores, fastsocket: CPS over base went from 1.2" in said.stdout and "a regression" in said.stdout
    assert said.stdout.endswith("1 regression\n")
    found = json.loads(lab("compare", "--json", str(before), str(worse)).stdout)
    assert found["regressions"] == 1 and found["fail_below"] == 0.95 and len(found["warnings"]) == 1
    assert {change["verdict"] for change in found["changes"]} == {"a regression", "no difference"}
    assert lab("compare", str(before), str(worse), "--fail-below", "0.5").returncode == 0


def test_what_cannot_be_compared_is_refused_in_one_line(tmp_path):
    other = a_run(blocks=10, cores=[2])
    other = other.model_copy(update={"options": other.options.model_copy(update={"experiment": "cost"})})
    before, cost = kept(tmp_path / "before", 1.2), kept(tmp_path / "cost", 1.2, run=other)
    assert_one_line(lab("compare", str(before), str(cost)), 2, "scalability", "cost", "choose two of the same")
    assert_one_line(lab("compare", str(before), str(tmp_path)), 2, "scalability", "cost")
    assert_one_line(lab("compare", str(before), str(tmp_path / "nothing")), 2, "holds no run")
    short = kept(tmp_path / "short", 1.2, run=a_run(blocks=2, cores=[2]))
    with pytest.raises(CompareError, match="no variant at the same setting with 5 complete blocks"):
        compare(before, short, 0.95)
