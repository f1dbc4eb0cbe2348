"""docs/process.md names every call that the library makes: a server that may make no other call is served."""

import re
import signal
import sys
from pathlib import Path

import pytest

from fastsocket import shared_memory
from fastsocket.build import LIBRARY
from tests.harness.apps import APPS, App
from tests.harness.cpus import CPUS, NEEDS_TWO_CPUS
from tests.harness.system_calls import numbers_by_name
from tests.harness.two_workers import REQUESTS, ask_all, two_workers
from tests.harness.waiting import wait_until

PAGE = Path(__file__).parent.parent / "docs" / "process.md"


pytestmark = [
    pytest.mark.timeout(60),
    pytest.mark.needs("gcc"),
    pytest.mark.needs("strace"),
    NEEDS_TWO_CPUS,
]


def calls_of_the_page() -> set[str]:
    """Those of its first table: the words in the second column."""
    section = PAGE.read_text().split("## Every server")[1].split("\n## ")[0]
    rows = [line.split("|")[2] for line in section.splitlines() if line.startswith("|")]
    return {call for row in rows for call in re.findall(r"`(\w+)`", row)}


@pytest.fixture(scope="module")
def own_calls(two_workers_program, tmp_path_factory) -> set[str]:
    """What the server calls without the library."""
    trace = tmp_path_factory.mktemp("trace") / "calls"
    with two_workers(two_workers_program, {}, ["strace", "-f", "-qq", "-o", str(trace)]) as app:
        ask_all(app)
    return set(re.findall(r"^\d+ +(\w+)\(", trace.read_text(), re.MULTILINE))


def counted(app: App, what: str) -> list[int]:
    return [getattr(shared_memory.counters(app.process)[cpu], what) for cpu in CPUS]


def allowing(calls: set[str]) -> list[str]:
    numbers = numbers_by_name()
    return [
        sys.executable,
        str(APPS / "allowing.py"),
        ",".join(str(numbers[call]) for call in calls if call in numbers),
    ]


def test_the_page_names_every_call_that_a_server_with_pinned_workers_makes_more(two_workers_program, own_calls):
    launcher = allowing(own_calls | calls_of_the_page())
    with two_workers(two_workers_program, {"LD_PRELOAD": str(LIBRARY)}, launcher) as app:
        wait_until(lambda: counted(app, "adopted") == [1, 1], "both clones are adopted")
        ask_all(app)
        assert counted(app, "accepted_local") == [REQUESTS, REQUESTS]


@pytest.mark.parametrize("forbidden", ["madvise", "memfd_create", "tgkill"])
def test_a_call_that_the_page_would_not_name_is_noticed(two_workers_program, own_calls, forbidden):
    """At load, in listen() and in the first wait: so that the test above can fail."""
    launcher = allowing((own_calls | calls_of_the_page()) - {forbidden})
    app = App(two_workers_program, {"LD_PRELOAD": str(LIBRARY)}, None, launcher)
    with pytest.raises(AssertionError, match=f"assert -{signal.SIGSYS} == 0|assert 1 == 0"), app:
        pass


def test_every_call_of_the_page_is_one(own_calls):
    known = set(numbers_by_name())
    assert calls_of_the_page() - known <= {"fstat", "newfstatat", "accept", "poll"}
    assert len(calls_of_the_page()) > 30
