"""Walks: which core did each step of a real connection, as a trace of the kernel tells."""

import pytest

from bench.walk import Event, What, connections
from records.trials import read_trials
from records.walk import ACTIVE_STEPS, PASSIVE_STEPS, read_walk, walk_path
from tests.harness.commands import lab

PORTS = range(80, 81)


def client(start: int, thread: int, port: int, cpu: int = 0) -> list[Event]:
    """What is seen of a client's connection until its request is read."""
    whats = [What.SYN_IN, What.SYN_ACK_OUT, What.ACK_IN, What.ACCEPTED, What.READ]
    return [Event(start + 1000 * number, thread, cpu, what, 80, port) for number, what in enumerate(whats)]


def backend(start: int, thread: int, port: int, cpu: int = 0) -> list[Event]:
    """What is seen of the proxy's connection; its port is chosen after connect() began."""
    whats = [What.SYN_OUT, What.SYN_ACK_IN, What.CONNECTED, What.ACK_OUT]
    return [
        Event(start, thread, cpu, What.CONNECTING, 0, 8080),
        *(Event(start + 1000 * number, thread, cpu, what, port, 8080) for number, what in enumerate(whats, start=1)),
    ]


def walks(*parts: list[Event]) -> list[list]:
    return by_connection(list(connections(sorted(event for part in parts for event in part), PORTS)))


def test_a_connection_is_followed_from_the_client_to_the_backend():
    [steps] = walks(client(0, thread=1, port=5000, cpu=1), backend(10_000, thread=1, port=6000))
    assert [step.step for step in steps] == [*PASSIVE_STEPS, *ACTIVE_STEPS]
    assert [step.cpu for step in steps] == [1] * 5 + [0] * 5
    assert [step.source_port for step in steps] == [5000] * 5 + [6000] * 5
    assert [step.us for step in steps][:3] == [0, 1, 2]


def test_threads_are_told_apart():
    both = walks(client(0, 1, 5000), client(100, 2, 5001), backend(10_000, 2, 6001), backend(10_100, 1, 6000))
    assert {(steps[0].source_port, steps[-1].source_port) for steps in both} == {(5000, 6000), (5001, 6001)}


def test_what_cannot_be_told_is_left_out():
    assert not walks(client(0, 1, 5000), client(100, 1, 5001), backend(10_000, 1, 6000), backend(20_000, 1, 6001))


def test_half_a_connection_is_left_out():
    assert not walks(client(0, 1, 5000)[:-1], backend(10_000, 1, 6000))
    assert not walks(client(0, 1, 5000), backend(10_000, 1, 6000)[:-1])


@pytest.mark.slow
@pytest.mark.privileged
def test_a_traced_proxy_stays_on_one_core_only_under_fastsocket(tmp_path):
    done = lab("sweep", "walk", "--quick", "--blocks", "1", "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    local = {}
    for variant in ("base", "fastsocket"):
        told = [
            {step.step: step.cpu for step in steps}
            for trial in read_trials(tmp_path / "run")
            if trial.arm == variant
            for steps in by_connection(read_walk(walk_path(tmp_path / "run", trial.index)))
        ]
        assert len(told) > 50
        local[variant] = sum(steps[3] == steps[9] == steps[10] == steps[13] for steps in told) / len(told)
    assert local["fastsocket"] >= 0.99 > 0.7 > local["base"]
    assert {"listen-table.svg", "active-connections.svg", "flow-deliver.svg"} <= {
        path.name for path in (tmp_path / "run" / "figures").iterdir()
    }


def by_connection(steps: list) -> list[list]:
    numbers = sorted({step.connection for step in steps})
    return [[step for step in steps if step.connection == number] for number in numbers]
