"""The proofs of the load generator: each runs for a moment, and says what it found."""

import json
from itertools import chain, cycle, repeat

import pytest

from bench import proofs
from tests.harness.cpus import NEEDS_TWO_CPUS

pytestmark = pytest.mark.timeout(120)


def found(capsys, proof: str) -> dict:
    assert proofs.main([proof, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.alone
@pytest.mark.slow
@pytest.mark.privileged
@NEEDS_TWO_CPUS
def test_a_rate_that_no_core_can_keep_is_said_to_be_lost(monkeypatch, capsys):
    monkeypatch.setattr(proofs, "RATES", (500, 500_000))
    slow, fast = found(capsys, "rate").values()
    assert slow.startswith("kept: ") and ", 0 errors, 99 % sent within" in slow
    assert "schedule" in fast and not fast.startswith("kept")


@pytest.mark.slow
@pytest.mark.privileged
def test_the_closed_loop_is_compared_with_wrk(monkeypatch, capsys):
    monkeypatch.setattr(proofs, "TURNS", 1)
    said = found(capsys, "wrk")
    [[ours, theirs]] = said["ours, wrk"]
    assert said["ours over wrk"] == ours / theirs > 0


@pytest.mark.slow
@pytest.mark.privileged
def test_the_watch_of_a_server_is_compared_with_none(monkeypatch, capsys):
    for name, value in {"WATCHED_SECONDS": 1, "BESIDE_SECONDS": 2, "ADDED_PAIRS": 1, "MOST_SECONDS": 0}.items():
        monkeypatch.setattr(proofs, name, value)
    said = found(capsys, "measure")
    [[watched, alone]] = said["with, without"]
    assert said["with over without"] == watched / alone > 0
    assert {name: value for name, value in said.items() if name.endswith(", median") and value <= 0} == {}


@pytest.mark.slow
@pytest.mark.privileged
def test_an_idle_scheduler_is_compared_with_a_stopped_one(monkeypatch, capsys):
    for name, value in {"ADDED_PAIRS": 1, "MOST_SECONDS": 0}.items():
        monkeypatch.setattr(proofs, name, value)
    said = found(capsys, "engine")
    [[idle, stopped]] = said["with, without"]
    assert said["with over without"] == idle / stopped > 0


def test_a_program_that_is_not_installed_is_one_line(monkeypatch, capsys):
    monkeypatch.setattr(proofs.shutil, "which", lambda *name, **path: None)
    assert proofs.main(["k6"]) == 3
    complaint = capsys.readouterr().err
    assert complaint.startswith("bench.proofs: k6 is not installed") and complaint.count("\n") == 1


def test_pairs_alternate_their_order_until_the_interval_is_narrow():
    """The first ten rates are far apart. With the ten that follow, the sign test leaves those out."""
    rates = chain([1.0, 9.0] * 5, repeat(2.0))
    order = []

    def one() -> float:
        order.append("one")
        return next(rates)

    def other() -> float:
        order.append("other")
        return 1.0

    said = proofs._by_turns(one, other)
    assert len(said["with, without"]) == 20
    assert said["with over without"] == 2.0 and said["95 % interval"] == (2.0, 2.0)
    assert order == ["other", "one", "one", "other"] * 10


def test_pairs_end_in_time_though_the_interval_is_wide(monkeypatch):
    monkeypatch.setattr(proofs, "MOST_SECONDS", 0)
    wide = cycle([1.0, 9.0])
    assert len(proofs._by_turns(lambda: next(wide), lambda: 1.0)["with, without"]) == proofs.ADDED_PAIRS
