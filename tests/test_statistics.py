"""The statistics against scipy's own, and the study of them against what it promises."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, wilcoxon

from analysis import statistics
from analysis.statistics import MIN_BLOCKS, holm, mean_interval, pseudomedian, resolution, shift
from analysis.study import (
    CHOSEN,
    EFFECT,
    INTERVALS,
    REFERENCE,
    SHOWN_BLOCKS,
    control_pairs,
    exceeds,
    hodges_lehmann,
    noises,
    study,
)

PAGE = Path(__file__).parent.parent / "docs" / "statistics.md"
VALUES = st.lists(st.floats(-10, 10).filter(lambda value: abs(value) > 1e-6), min_size=6, max_size=30, unique_by=abs)


@given(values=VALUES)
def test_the_probability_is_wilcoxons(values):
    assert pseudomedian(np.array(values)).p == pytest.approx(wilcoxon(values, method="exact").pvalue)


@given(values=VALUES)
def test_interval_and_probability_say_the_same(values):
    centre = pseudomedian(np.array(values))
    assert centre.low <= centre.value <= centre.high
    assert (centre.low > 0 or centre.high < 0) == (centre.p <= 0.05)


@given(values=VALUES)
def test_all_runs_at_once_have_the_bounds_of_each(values):
    low, high = hodges_lehmann(np.array([values]))
    assert (low[0], high[0]) == pseudomedian(np.array(values))[1:3]


def test_many_values_have_the_bounds_and_the_probability_of_few(monkeypatch):
    values = np.random.default_rng(4).normal(0.02, 0.2, statistics._EXACT)
    exact = pseudomedian(values)
    monkeypatch.setattr(statistics, "_EXACT", 0)
    assert tuple(pseudomedian(values)) == pytest.approx(tuple(exact), rel=0.01)


def test_one_wild_value_hardly_moves_it():
    values = np.random.default_rng(1).normal(0, 0.02, 20)
    tame, wild = pseudomedian(values), pseudomedian(np.append(values[:-1], -5.0))
    assert abs(wild.value - tame.value) < 0.01 and wild.high - wild.low < 2 * (tame.high - tame.low)


def test_two_runs_that_are_equal_differ_as_often_as_it_says():
    random = np.random.default_rng(2)
    runs = [shift(*random.standard_t(3, (2, 20))) for _ in range(2000)]
    assert not exceeds(sum(run.low > 0 or run.high < 0 for run in runs), len(runs))
    assert np.mean([run.p <= 0.05 for run in runs]) == pytest.approx(0.05, abs=0.02)
    moved = shift(values := random.normal(0, 0.01, 20), values + 0.05)
    assert moved.low < 0.05 < moved.high and moved.value == pytest.approx(0.05, abs=0.005)


def test_a_mean_with_a_stalled_block_has_an_interval_that_can_be_believed():
    """Resampling the t statistic gave 34,821 to 101,575 here."""
    blocks = np.array([68957, 78926, 101289, 100179, 101913, 102547, 99634, 99649, 101854, 99565.0])
    assert mean_interval(blocks) == pytest.approx((87134, 103769), abs=1)
    assert np.isnan(mean_interval(blocks[: MIN_BLOCKS - 1])).all()


def test_holm_as_his_own_example_has_it():
    assert holm(np.array([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert len(holm(np.array([]))) == 0


def test_a_run_finds_what_it_says_it_could_in_nine_of_ten():
    """With normal values of known spread: the interval is 1.96 errors wide on either side."""
    error = 0.01
    said = math.log(resolution(math.exp(-1.96 * error), math.exp(1.96 * error)))
    assert said / error == pytest.approx(1.96 + 1.2816, rel=1e-3)


@pytest.fixture(scope="module")
def kinds():
    return noises(control_pairs(REFERENCE))


RUNS = 1000


@pytest.mark.parametrize("blocks", [5, 10, 16])
def test_no_noise_makes_the_chosen_interval_wrong_more_often_than_it_says(kinds, blocks):
    for kind, noise in kinds.items():
        low, high = INTERVALS[CHOSEN](noise(np.random.default_rng(blocks), RUNS, blocks))
        assert not exceeds(int(((low > 0) | (high < 0)).sum()), RUNS), kind


def test_the_study_finds_an_interval_that_is_wrong_too_often(kinds):
    stalls = next(noise for kind, noise in kinds.items() if kind.startswith("normal,"))
    low, high = INTERVALS["bootstrap-t, blocks"](stalls(np.random.default_rng(1), 300, 16))
    assert exceeds(int(((low > 0) | (high < 0)).sum()), 300)


def test_each_table_of_the_study_has_numbers_for_each_kind_of_noise(kinds):
    tables = dict(study(kinds, runs=10))
    assert [f"### {heading}" for heading in tables] == re.findall("^### .*", PAGE.read_text(), re.MULTILINE)
    for heading, table in tables.items():
        _, _, *rows = [line.strip("| ").split(" | ") for line in table.splitlines()]
        assert [kind for kind, *_ in rows] == list(kinds), heading
        cells = [cell for _, *row in rows for cell in row]
        assert [cell for cell in cells if not re.fullmatch(r"[\d./*%, ]+( of 100)?", cell)] == [], heading


def test_the_page_shows_what_the_study_prints(kinds):
    """Its rows, and of its numbers those of the chosen interval at 10 blocks, as far as fewer runs can tell."""
    tables = PAGE.read_text().split("\n### ")[1:]
    wrong, seen = (dict(re.findall(r"^\| (.*?) \|.*\| ([^|]*) \|$", text, re.MULTILINE)) for text in tables[:2])
    for kind, noise in kinds.items():
        low, high = INTERVALS[CHOSEN](noise(np.random.default_rng(10), RUNS, 10))
        at = SHOWN_BLOCKS.index(10)
        for cell, count in (
            (wrong[kind], ((low > 0) | (high < 0)).sum()),
            (seen[kind], (low + np.log1p(EFFECT) > 0).sum()),
        ):
            said = float(cell.split(" / ")[at].strip("*")) / 100
            assert binom.ppf(0.0005, RUNS, said) - 10 <= count <= binom.ppf(0.9995, RUNS, said) + 10, kind
