"""Published test suites: how outcomes are read and compared, and a short part of CPython's suite for real."""

import signal

import pytest

from fastsocket.build import LIBRARY
from tests.harness.needs import CPYTHONS_OWN_TESTS
from tests.published import __main__ as command
from tests.published.compare import Finding, compare
from tests.published.outcomes import FINISHED, Outcome, read_junit, read_tap
from tests.published.run import Way
from tests.published.suites import Unit, cpython_unit

TAP = """\
1..5
ok 1 - opens
not ok 2 - closes
ok 3 # skip no IPv6 here
not ok 4 - flies # TODO not yet
# a remark
ok 5
"""
WITH_LIBRARY = 'case "$LD_PRELOAD" in *libfsocket*)'


def tap_unit(script: str, **environment: str) -> Unit:
    """A suite of one shell script."""
    return Unit(
        "script.t",
        ("sh", "-c", script),
        lambda output, scratch, status: read_tap(output, status),
        environment=environment,
    )


def compared(script: str, **environment: str):
    return compare(tap_unit(script, **environment), (Way(), Way(LIBRARY)), reruns=2)


def test_tap():
    result = read_tap(TAP, 1)
    assert result.outcomes == {
        "1": Outcome.PASSED,
        "2": Outcome.FAILED,
        "3": Outcome.SKIPPED,
        "4": Outcome.SKIPPED,
        "5": Outcome.PASSED,
        FINISHED: Outcome.PASSED,
    }
    assert result.titles["2"] == "closes"


@pytest.mark.parametrize("output, status", [("1..2\nok 1\n", 0), ("ok 1\n", 0), ("", 139), ("1..1\nok 1\n", 139)])
def test_tap_that_is_cut_short(output, status):
    assert not read_tap(output, status).finished


def test_tap_of_a_script_that_skips_itself():
    assert read_tap("1..0 # SKIP no such module\n", 0).outcomes == {FINISHED: Outcome.SKIPPED}


def test_junit(tmp_path):
    report = tmp_path / "junit.xml"
    report.write_text(
        '<testsuites><testsuite><testcase name="good"/><testcase name="bad"><failure/></testcase>'
        '<testcase name="not here"><skipped/></testcase></testsuite></testsuites>'
    )
    assert read_junit(report, 2).outcomes == {
        FINISHED: Outcome.PASSED,
        "good": Outcome.PASSED,
        "bad": Outcome.FAILED,
        "not here": Outcome.SKIPPED,
    }


def test_a_run_that_dies_leaves_no_report(tmp_path):
    result = read_junit(tmp_path / "junit.xml", 128 + signal.SIGSEGV)
    assert not result.finished and result.titles[FINISHED] == "killed by signal 11"


@pytest.mark.parametrize(
    "runs, bare, library, differs",
    [(5, 0, 5, True), (5, 0, 2, True), (5, 0, 1, False), (5, 1, 2, False), (5, 1, 5, True)],
)
def test_a_flake_is_no_difference(runs, bare, library, differs):
    assert Finding("unit", "test", "", runs, bare, library).is_difference == differs


def test_what_fails_either_way_is_not_the_librarys():
    comparison = compared("echo 1..1; echo not ok 1 - never")
    assert comparison.fail_both == ["script.t 1 never"] and not comparison.findings


@pytest.mark.parametrize("with_library", ["echo not ok 1", "echo 'ok 1 # skip'", "kill -SEGV $$"])
def test_what_the_library_breaks_is_found(with_library):
    comparison = compared(f"echo 1..1; {WITH_LIBRARY} {with_library};; *) echo ok 1;; esac")
    assert len(comparison.differences) == 1
    assert "failed 3 of 3 times with the library, 0 without" in str(comparison.differences[0])


def test_what_breaks_once_is_a_flake(tmp_path):
    first_time = f"! test -e {tmp_path}/seen && touch {tmp_path}/seen"
    comparison = compared(f"echo 1..1; {WITH_LIBRARY} {first_time} && echo not ok 1 || echo ok 1;; *) echo ok 1;; esac")
    assert len(comparison.flakes) == 1 and not comparison.differences


@pytest.mark.slow
@pytest.mark.timeout(100)
@pytest.mark.needs(CPYTHONS_OWN_TESTS)
@pytest.mark.parametrize("pinned", [False, True], ids=["free", "pinned"])
@pytest.mark.parametrize(
    "module, tests",
    [
        ("test_epoll", ()),
        ("test_socketserver", ()),
        ("test_socket", ("BasicTCPTest", "NonBlockingTCPTests", "*sgTCPTest", "*IntoTCPTest", "TCPCloserTest")),
    ],
)
def test_cpythons_own_suite(module, tests, pinned):
    comparison = compare(cpython_unit(module), (Way(None, pinned), Way(LIBRARY, pinned)), reruns=2, tests=tests)
    assert comparison.passed > 5
    assert not comparison.differences, "\n".join(map(str, comparison.differences))


def test_a_suite_that_cannot_be_had_says_how_to_get_it(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert command.main(["memcached"]) == 3
    assert capsys.readouterr().err == "tests.published: no memcached on PATH: apt-get install memcached\n"


@pytest.mark.needs(CPYTHONS_OWN_TESTS)
def test_a_library_that_does_not_load(capsys, tmp_path):
    assert command.main(["cpython", "--only", "test_epoll", "--library", str(tmp_path / "none.so")]) == 3
    assert "name another with --library" in capsys.readouterr().err


def test_the_list_names_every_suite(capsys):
    assert command.main(["--list"]) == 0
    assert {line.split()[0] for line in capsys.readouterr().out.splitlines()} == {"cpython", "nginx", "memcached"}


@pytest.mark.needs(CPYTHONS_OWN_TESTS)
def test_a_unit_that_is_not_there_is_a_usage_error(capsys):
    assert command.main(["cpython", "--only", "test_nothing"]) == 2
    assert "no unit of cpython matches test_nothing" in capsys.readouterr().err
