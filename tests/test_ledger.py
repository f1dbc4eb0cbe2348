"""lab.py ledger: what many runs say together."""

import json
import math
import shutil

import numpy as np
import pandas as pd
import pytest

from analysis.ledger import COLUMNS, pooled, ratios, runs_below
from analysis.statistics import MIN_CLUSTERS
from analysis.study import exceeds
from records.run import RUN, RecordError, read_run, write_run
from records.trials import append_trial
from tests.harness.commands import lab
from tests.harness.runs import a_run, trials_of


def a_day(directory, day: int, effect: float, control: float = 1.0):
    """A run of that day, in which fastsocket has so many times base's throughput."""
    run = a_run(blocks=10, cores=[2], started=f"2026-01-{day:02}T12:00:00+00:00")
    noise = np.random.default_rng(day)
    means = {"fastsocket": effect, "control": control}
    directory.mkdir(parents=True)
    write_run(directory, run)
    for trial in trials_of(run, lambda index, arm, cores: 1000 * means.get(arm, 1) * math.exp(noise.normal(0, 0.01))):
        append_trial(directory, trial)
    return directory


def test_controls_are_listed_and_those_off_counted_and_runs_are_one_value_each(tmp_path):
    for day, (effect, control) in enumerate([(1.1, 1), (1.2, 1), (1.3, 1.1)], start=1):
        a_day(tmp_path / "runs" / str(day), day, effect, control)
    shutil.copytree(tmp_path / "runs" / "1", tmp_path / "runs" / "a copy")
    (tmp_path / "runs" / "torn").mkdir()
    (tmp_path / "runs" / "torn" / RUN).write_text("{")
    said = lab("ledger", str(tmp_path)).stdout
    lines = said.splitlines()
    assert lines[0].startswith("left out: ") and "torn" in lines[0]
    assert [line[:10] for line in lines[1:4]] == ["2026-01-01", "2026-01-02", "2026-01-03"]
    assert [line.endswith(", off") for line in lines[1:4]] == [False, False, True]
    assert "1 of 3 controls in 3 runs, 33.3 % (6.1–79.2); by chance it would be 5 %" in lines[4]
    [row] = [line for line in lines[5:] if "fastsocket over base" in line]
    assert row.startswith("3 runs of scalability, spread ") and " 1.202 (0.9" in row
    told = json.loads(lab("ledger", "--json", str(tmp_path)).stdout)
    assert {len(told["ratios"]), len(told["pooled"])} == {9, 3}
    with pytest.raises(RecordError, match="no run with trials"):
        runs_below([tmp_path / "nowhere"])


def test_runs_that_asked_something_else_are_not_pooled(tmp_path):
    for day in range(1, MIN_CLUSTERS + 1):
        a_day(tmp_path / str(day), day, 1.1)
    other = read_run(tmp_path / "1")
    write_run(tmp_path / "1", other.model_copy(update={"options": other.options.model_copy(update={"nic": "threads"})}))
    runs, _ = runs_below([tmp_path])
    assert set(pooled(ratios(runs)).runs) == {MIN_CLUSTERS - 1} and pooled(ratios(runs)).low.isna().all()


def test_days_that_differ_make_a_pooled_ratio_wrong_no_more_often_than_it_says():
    """Each run is precise to 0.1 %, and each day moves all of its blocks by 2 %."""
    settings, runs = 2000, 4
    logs = np.random.default_rng(1).normal(0, 0.02, (settings, runs))
    found = pd.DataFrame(
        [
            ("day", "scalability", "", "nginx", number, "fastsocket", "cps", math.exp(log), math.nan, math.nan)
            for number, of_one in enumerate(logs)
            for log in of_one
        ],
        columns=COLUMNS,
    )
    wrong = pooled(found).query("low > 1 or high < 1")
    assert not exceeds(len(wrong), settings) and len(wrong) > 0.03 * settings
