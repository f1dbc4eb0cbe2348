"""lab.py model: the queue against closed forms, and that its page tells what it says."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.model.curves import SLIDES_MACHINE, published_curves
from analysis.model.fit import Lock, fit_lock
from analysis.model.queue import at_the_lock, busy, throughput, waiting
from analysis.model.tables import GOOD
from tests.harness.commands import assert_one_line, lab

PAGE = Path(__file__).parent.parent / "docs" / "model.md"
SOME_CORES, SOME_TIME = st.integers(1, 128), st.floats(0.01, 100)


def solved(cores: int, local: float, hold: float, per_waiter: float = 0.0) -> np.ndarray:
    return at_the_lock(cores, *(np.array([time]) for time in (local, hold, per_waiter)))


def erlang_b(servers: int, load: float) -> float:
    """By its recursion: the part of calls that find all lines busy."""
    blocked = 1.0
    for count in range(1, servers + 1):
        blocked = load * blocked / (count + load * blocked)
    return blocked


@given(cores=SOME_CORES, local=SOME_TIME, hold=SOME_TIME)
def test_without_spinning_the_lock_is_free_as_often_as_erlang_says(cores, local, hold):
    """The machine-repairman model: machines that run are the calls of a trunk with as many lines."""
    queue = solved(cores, local, hold)
    assert 1 - busy(queue)[0] == pytest.approx(erlang_b(cores, local / hold), abs=1e-9)
    assert throughput(queue, np.array([local]))[0] == pytest.approx(busy(queue)[0] / hold, rel=1e-6, abs=1e-9)


@given(cores=SOME_CORES, local=SOME_TIME, hold=SOME_TIME, per_waiter=st.floats(0, 10))
def test_throughput_keeps_its_bounds_and_spinning_takes_from_it(cores, local, hold, per_waiter):
    spun, queued = solved(cores, local, hold, per_waiter), solved(cores, local, hold)
    served, most = (throughput(queue, np.array([local]))[0] for queue in (spun, queued))
    assert served <= most + 1e-9
    assert most <= min(cores / (local + hold), 1 / hold) * (1 + 1e-6) + 1e-9
    assert 0 <= waiting(spun)[0] <= 1


def test_two_cores_by_hand():
    """Rates of arrival 2/4 and 1/4; of service 1 and, with a waiter, 1/(1 + 2/2)."""
    weights = np.array([1, 1 / 2, 1 / 2 * 1 / 2])
    assert solved(2, 4.0, 1.0, 2.0)[0] == pytest.approx(weights / weights.sum())


def test_a_line_comes_from_the_other_socket_as_often_as_two_cores_are_apart():
    near = 12 * 11 * 2 / (24 * 23)
    assert SLIDES_MACHINE.transfer(12) == pytest.approx(109 / 2700)
    assert SLIDES_MACHINE.transfer(24) == pytest.approx((near * 109 + (1 - near) * 289) / 2700)


def test_parameters_that_made_a_curve_are_found_and_held_out_points_are_not_looked_at():
    for curve in (curve for curve in published_curves() if "HAProxy" in curve.name):
        true = Lock(curve, *(np.array([value]) for value in (40.0, 4.0, 0.0 if curve.is_local else 5.0, curve.spun)))
        kcps = np.array([true.kcps(int(cores))[0] for cores in curve.cores])
        fitted = fit_lock(replace(curve, kcps=kcps), curve.spun)
        blind = fit_lock(replace(curve, kcps=np.where(curve.is_known, kcps, 1.0)), curve.spun)
        assert fitted.hold[0] == pytest.approx(4, rel=0.02)
        assert fitted.kcps(24)[0] == pytest.approx(kcps[-1], rel=0.01)
        assert blind.kcps(24) == pytest.approx(fitted.kcps(24))


def numbers(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"\d+(?:\.\d+)?", text)]


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    """What the command writes. It takes 10 s: fits, draws and the figure."""
    directory = tmp_path_factory.mktemp("model")
    done = lab("model", "--out", str(directory))
    assert done.returncode == 0, done.stderr
    return directory


def test_the_page_in_the_docs_has_what_the_command_writes(written):
    page = PAGE.read_text().splitlines()
    for line in (written / "model.md").read_text().splitlines():
        if line and not line.startswith("## "):
            alike = [one for one in page if re.sub(r"[\d.]+", "", one.lstrip("> ")) == re.sub(r"[\d.]+", "", line)]
            assert any(numbers(one) == pytest.approx(numbers(line), rel=0.03, abs=1) for one in alike), line


def test_the_model_is_as_good_as_it_was_asked_to_be(written):
    judged = (written / "model.md").read_text().splitlines()[0]
    assert numbers(judged)[0] <= 100 * GOOD
    assert (written / "figures" / "model.svg").exists() and (written / "tables" / "held-out.csv").exists()


def test_bad_input_is_one_line(tmp_path):
    assert_one_line(lab("model", "--cores", "0,8"), 2, "--cores '0,8'", "64,128")
    assert_one_line(lab("model", str(tmp_path)), 2, "run.json is missing")


def test_json_has_every_table():
    found = json.loads(lab("model", "--json", "--cores", "32").stdout)
    assert {row["cores"] for row in found["beyond"]} == {32}
    assert len(found["held-out"]) == 21
