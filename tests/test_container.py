"""What is said of a container, told apart from its real engine: tests/test_image.py has that one."""

from pathlib import Path

import pytest

from bench.experiment import plan
from setup import container, doctor


@pytest.fixture
def in_a_container(monkeypatch):
    monkeypatch.setattr(container, "engine", lambda: "Docker")


def need(name: str, is_there: bool) -> container.Need:
    return container.Need(name, "whatever", f"--give {name}", lambda: is_there)


def test_outside_of_one_nothing_is_lacking():
    assert container.engine() is None
    assert container.lacking([need("a", False)]) == []


def test_each_engine_is_known_by_the_file_that_it_leaves(monkeypatch, tmp_path):
    monkeypatch.setattr(container, "MARKS", {tmp_path / "one": "One", tmp_path / "other": "Other"})
    monkeypatch.setattr(container, "FIRST", {Path("/proc/self/ns/pid"): 0})
    assert container.engine() is None
    (tmp_path / "other").touch()
    assert container.engine() == "Other"


def test_a_machine_made_from_an_image_is_no_container(monkeypatch, tmp_path):
    monkeypatch.setattr(container, "MARKS", {tmp_path: "Docker"})
    monkeypatch.setattr(container, "FIRST", {tmp_path: tmp_path.stat().st_ino})
    assert container.engine() is None


def test_what_is_lacking_is_named_with_its_options(in_a_container):
    missing = container.lacking([need("a", False), need("b", True), need("c", False)])
    assert [one.name for one in missing] == ["a", "c"]
    assert container.options(missing) == "start the container with --privileged, or with --give a --give c"


def test_doctor_asks_first_what_it_was_not_given(in_a_container, monkeypatch):
    monkeypatch.setattr(container, "NEEDS", (need("a", True), need("b", False)))
    found = {check.name: check for check in doctor.checks()}
    assert found["Docker: a"].ok and not found["Docker: b"].ok and found["Docker: b"].required
    assert "--give b" in found["Docker: b"].remedy


def test_what_changes_the_whole_machine_is_left_out(in_a_container):
    options = plan("single-core-nginx", "quick", variants=["base", "rfs", "no-skb-pool", "no-direct-tcp"])
    assert set(options.lacking["nginx"]) == {"rfs", "no-skb-pool"}
    assert all("could not put back" in why for why in options.lacking["nginx"].values())
