"""The benchmarks of the library's cost run, and give sane figures. How fast a call has to be is no test's matter."""

import json
import random
from statistics import NormalDist

import pytest

from fastsocket.build import LIBRARY
from fastsocket.cost.__main__ import main
from fastsocket.cost.call import CONTROL
from fastsocket.cost.measure import median_interval

SHORT = ["call", "--processes", "1", "--rounds", "5", "--batch", "20"]


def test_every_interposed_call_has_a_figure(capsys):
    assert main([*SHORT, "--json"]) == 0
    costs = json.loads(capsys.readouterr().out)
    assert {"close", "accept4", "bind", "connect", "epoll_ctl", "shutdown", "dup2", "listen", CONTROL} <= {
        cost["call"] for cost in costs
    }
    assert all(10 < cost["libc"] < 1e6 and 10 < cost["library"] < 1e6 for cost in costs)
    assert all(cost["added_low"] is None for cost in costs)


def test_a_table_for_people(capsys):
    assert main(SHORT) == 0
    assert capsys.readouterr().out.splitlines()[2].startswith(CONTROL)


def test_a_limit_that_every_call_passes_and_one_that_none_does(capsys):
    enough_for_intervals = ["call", "--processes", "6", "--rounds", "3", "--batch", "5"]
    assert main([*enough_for_intervals, "--limit", "1e9"]) == 0
    assert main([*enough_for_intervals, "--limit=-1e9"]) == 1
    assert "close on closed fd costs more" in capsys.readouterr().err


def test_a_library_that_does_not_load_is_said(capsys, tmp_path):
    assert main([*SHORT, "--library", str(tmp_path / LIBRARY.name)]) == 3
    assert "did the library load?" in capsys.readouterr().err


@pytest.mark.privileged
def test_connect_is_measured_with_and_without_other_connections(capsys):
    few = ["connect", "--processes", "1", "--connections", "300", "--rounds", "2", "--batch", "5"]
    assert main([*few, "--json"]) == 0
    costs = json.loads(capsys.readouterr().out)
    assert [(cost["call"], cost["on"]) for cost in costs] == [
        ("connect", on) for on in ("no other connection", "many, to others", "half of the ports used")
    ]
    assert all(100 < cost["libc"] < 1e7 and 100 < cost["library"] < 1e7 for cost in costs)


@pytest.mark.privileged
def test_connect_of_a_library_that_does_not_load_is_not_measured(capfd, tmp_path):
    assert main(["connect", "--processes", "1", "--library", str(tmp_path / LIBRARY.name)]) == 3
    assert "did the library load?" in capfd.readouterr().err


@pytest.mark.parametrize("n", [6, 11, 21])
def test_the_interval_has_the_median_as_often_as_it_says(n):
    draw = random.Random(1)
    intervals = [median_interval([NormalDist().inv_cdf(draw.random()) for _ in range(n)]) for _ in range(2000)]
    assert sum(low <= 0 <= high for low, high in intervals) / len(intervals) > 0.94


def test_too_few_values_have_no_interval():
    assert median_interval([1.0, 2.0, 3.0, 4.0, 5.0]) is None
