"""What the command's arguments say: random ones are taken whole, as they were meant, or refused in one short line."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastsocket import arguments
from fastsocket.arguments import UsageError
from fastsocket.steering.cpus import machine_cpus, parse_cpus

DIGITS = st.text("0123456789", max_size=12) | st.integers(-5, 70_000).map(str) | st.text("٠١２ _+-\n\0", max_size=3)
PORTS = st.integers(1, 65535)
MACHINE = sorted(os.sched_getaffinity(0))


def taken(parse, argument):
    """What it was taken for; None: it was refused, as it should be."""
    try:
        return parse(argument)
    except UsageError as refusal:
        assert refusal.exit_status == 2
        assert str(refusal).isprintable() and len(str(refusal)) < 300
        return None


@given(ranges=st.lists(st.tuples(st.integers(0, 1023), st.integers(0, 100)), min_size=1, max_size=8))
def test_a_list_of_cpus_is_all_of_its_ranges(ranges):
    text = ",".join(f"{first}-{first + more}" if more else str(first) for first, more in ranges)
    assert parse_cpus(text) == tuple(sorted({cpu for first, more in ranges for cpu in range(first, first + more + 1)}))


@given(
    text=st.lists(st.tuples(DIGITS, DIGITS).map("-".join) | DIGITS, max_size=5).map(",".join) | st.text(max_size=30),
    count=st.integers(1, 5000),
)
def test_whatever_is_written_as_a_list_of_cpus_is_bounded(text, count):
    try:
        cpus = parse_cpus(text, count)
    except ValueError:
        return
    assert cpus and list(cpus) == sorted(set(cpus)) and 0 <= cpus[0] <= cpus[-1] < count
    assert set(text) <= set("0123456789,-")


@given(text=st.lists(DIGITS, max_size=5).map(",".join) | st.text(max_size=400))
def test_cpus_are_the_machines(text):
    named = taken(arguments.cpus, text)
    assert named is None or set(named) <= set(range(machine_cpus()))


def test_without_cpus_all_that_the_command_may_use():
    assert arguments.cpus(None) == tuple(MACHINE)


@given(rules=st.lists(st.tuples(PORTS, st.sampled_from(MACHINE)), unique_by=lambda rule: rule[0], max_size=10))
def test_rules_for_ports_are_taken_as_written(rules):
    assert arguments.port_rules([f"{port}={cpu}" for port, cpu in rules]) == dict(rules)


@given(rules=st.lists(st.tuples(DIGITS, DIGITS).map("=".join) | DIGITS | st.text(max_size=400), max_size=4))
def test_whatever_is_written_as_rules_for_ports_is_bounded(rules):
    found = taken(arguments.port_rules, rules)
    assert found is None or len(found) == len(rules)
    for port, cpu in (found or {}).items():
        assert 1 <= port <= 65535 and 0 <= cpu < machine_cpus()


@given(ports=st.lists(PORTS, unique=True, max_size=16))
def test_ports_to_accelerate_are_taken_as_written(ports):
    assert arguments.only_ports(list(map(str, ports))) == tuple(ports)


@given(ports=st.lists(DIGITS | st.text(max_size=400), max_size=20))
def test_whatever_is_written_as_ports_to_accelerate_is_bounded(ports):
    found = taken(arguments.only_ports, ports)
    assert found is None or (len(set(found)) == len(ports) <= 16 and all(1 <= port <= 65535 for port in found))


@pytest.mark.parametrize("rules", [["80=0", "80=1"], ["80=0", "080=0"]])
def test_a_port_has_one_rule(rules):
    with pytest.raises(UsageError, match="each port once"):
        arguments.port_rules(rules)
