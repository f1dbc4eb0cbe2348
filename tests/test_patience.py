"""One variable makes all waits of the tests longer."""

import os
import subprocess
import sys

import pytest

from setup.bootstrap import ROOT
from tests.harness import servers
from tests.harness.patience import patient
from workloads.limits import read


@pytest.mark.timeout(30)
def test_a_time_out_of_its_own_is_stretched(request):
    assert request.node.get_closest_marker("timeout").args == (patient(30),)
    assert patient(15) == servers.WAIT_SECONDS
    assert read().grace_seconds == patient(20)


def test_the_usual_time_out_is_stretched(request):
    assert request.node.get_closest_marker("timeout").args == (patient(request.config.getoption("timeout")),)


def test_both_are_stretched_by_the_environment():
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-k", "is_stretched", __file__],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "FASTSOCKET_TEST_PATIENCE": "3"},
    )
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout
