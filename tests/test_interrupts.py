"""The line through gains and interrupts saved."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.figures.interrupts import line

SAVED = np.linspace(0, 2, 40)


@settings(deadline=None)
@given(st.floats(-0.2, 0.2), st.floats(-0.2, 0.2), st.integers(0, 2**32 - 1))
def test_the_line_finds_what_is_left_without_the_interrupts(intercept, slope, seed):
    noise = np.random.default_rng(seed).normal(0, 0.01, len(SAVED))
    fitted = line(pd.DataFrame({"fewer": SAVED, "gain": np.exp(intercept + slope * SAVED + noise)}))
    assert fitted.intercept == pytest.approx(intercept, abs=0.02)
    assert fitted.slope == pytest.approx(slope, abs=0.02)
    assert 0 < fitted.intercept_reach < 0.02


@pytest.mark.parametrize("saved", [[0.1, 0.2], [0.5] * 10])
def test_no_line_is_drawn_through_too_little(saved):
    assert line(pd.DataFrame({"fewer": saved, "gain": [1.0 + x for x in saved]})) is None
