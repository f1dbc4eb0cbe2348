"""Long runs: what grows is told from what does not."""

from itertools import islice

import numpy as np
import pytest

from bench import soak
from bench.soak import Window, grows, growth
from workloads import generator


def windows(memory=0.0, descriptors=0.0, p99=0.0, beginning=0):
    """Of a tenth of a million connections each, with noise. Each number grows by so much for each million."""
    noise = np.random.default_rng(1)
    return [
        Window(
            connections=100_000 * (number + 1),
            memory_kb=round(9000 + memory * number / 10 + noise.normal(0, 4) - (beginning if number < 3 else 0)),
            descriptors=round(40 + descriptors * number / 10),
            p99_ms=2 + p99 * number / 10 + noise.normal(0, 0.2),
            errors=0,
        )
        for number in range(90)
    ]


@pytest.mark.parametrize(
    "made, growing",
    [
        ({}, []),
        ({"beginning": 500}, []),
        ({"p99": 0.5}, []),
        ({"memory": 3}, ["memory_kb"]),
        ({"descriptors": 1}, ["descriptors"]),
    ],
)
def test_what_grows_with_the_connections_is_named(made, growing):
    assert grows(growth(windows(**made))) == growing


def test_growth_is_for_each_million_connections():
    found = growth(windows(memory=20, p99=0.5))
    assert found["memory_kb"]["low"] < 20 < found["memory_kb"]["high"]
    assert found["p99_ms"]["low"] < 0.5 < found["p99_ms"]["high"]


@pytest.mark.privileged
@pytest.mark.parametrize("name", ["nginx", "haproxy"])
def test_a_server_is_watched_while_it_serves(name, monkeypatch):
    monkeypatch.setattr(soak, "WINDOW_SECONDS", 1)
    generator.build()
    first, second = islice(soak.soak(name, minutes=1), 2)
    assert second.connections - first.connections > 100
    assert second.memory_kb > 1000 and abs(second.descriptors - first.descriptors) < 10
    assert first.errors == second.errors == 0
