"""Records survive what can happen to a file while it is written."""

import pytest

from records.run import Options, RecordError, read_run
from records.trials import TRIALS, CpuUse, Trial, append_trial, drop_torn_line, read_trials


def trial(index=0, **changes):
    use = CpuUse(cpu=0, user=0.1, system=0.2, softirq=0.3, irq=0, idle=0.4, iowait=0, steal=0)
    fields = {
        "index": index,
        "block": 0,
        "workload": "nginx",
        "variant": "base",
        "control": False,
        "cores": 1,
        "started": 1.0,
        "seconds": 1.0,
        "metrics": {"cps": 1000.0},
        "unavailable": {},
        "latency_ms": {"50": 1.0},
        "load_errors": {},
        "cpu": [use],
        "load_cpu_seconds": 0.1,
        "library": None,
        "spoilt": [],
    }
    return Trial(**{**fields, **changes})


def test_what_was_appended_is_read_back(tmp_path):
    trials = [trial(0), trial(1, variant="fastsocket"), trial(2, control=True)]
    for each in trials:
        append_trial(tmp_path, each)
    assert read_trials(tmp_path) == trials
    assert [each.arm for each in trials] == ["base", "fastsocket", "control"]


@pytest.mark.parametrize("kept", [1, 10, -1])
def test_a_line_cut_short_by_a_kill_is_ignored_and_then_cut_off(tmp_path, kept):
    append_trial(tmp_path, trial(0))
    whole = (tmp_path / TRIALS).read_bytes()
    (tmp_path / TRIALS).write_bytes(whole + whole[:kept])
    assert read_trials(tmp_path) == [trial(0)]
    drop_torn_line(tmp_path)
    append_trial(tmp_path, trial(1))
    assert read_trials(tmp_path) == [trial(0), trial(1)]


def test_a_damaged_line_is_named(tmp_path):
    append_trial(tmp_path, trial(0))
    with open(tmp_path / TRIALS, "a") as file:
        file.write('{"index": 1}\n')
    with pytest.raises(RecordError, match=r"trials\.jsonl:2 is damaged"):
        read_trials(tmp_path)


def test_a_directory_without_a_run_is_said_to_be_one(tmp_path):
    with pytest.raises(RecordError, match=r"holds no run: run\.json is missing"):
        read_run(tmp_path)


def test_an_unknown_field_is_refused():
    with pytest.raises(ValueError, match="cpus"):
        Options(experiment="x", workloads=[], variants=[], cores=[], blocks=1, seconds=1, seed=1, cpus=3)
