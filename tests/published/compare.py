"""Test by test: what fails only with the library, and whether it does so again."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.published.outcomes import FINISHED, Outcome, Result
from tests.published.run import Way, run
from tests.published.suites import Unit


@dataclass(frozen=True)
class Finding:
    """A test that failed with the library where it had not without, and how often either way in all runs."""

    unit: str
    test: str
    title: str
    runs: int
    failed_bare: int
    failed_with: int

    @property
    def is_difference(self) -> bool:
        """Once is a flake, and so is what fails without the library too, unless that is much rarer."""
        if not self.failed_bare:
            return self.failed_with > 1
        return self.failed_with - self.failed_bare > self.runs / 2

    def __str__(self) -> str:
        what = f"{self.unit} {self.test}" + (f" ({self.title})" if self.title else "")
        return f"{what}: failed {self.failed_with} of {self.runs} times with the library, {self.failed_bare} without"


@dataclass
class Comparison:
    """A unit, or a whole suite, run in both ways."""

    passed: int = 0
    skipped: int = 0
    fail_both: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    @property
    def differences(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.is_difference]

    @property
    def flakes(self) -> list[Finding]:
        return [finding for finding in self.findings if not finding.is_difference]

    def add(self, other: "Comparison") -> None:
        self.passed += other.passed
        self.skipped += other.skipped
        self.fail_both += other.fail_both
        self.findings += other.findings


def compare(
    unit: Unit, ways: tuple[Way, Way], reruns: int, tests: Sequence[str] = (), keep: Path | None = None
) -> Comparison:
    """Run a unit, or these tests of it, bare and with the library, and what failed only with it some times more."""
    without, preloaded = (run(unit, way, tests, keep) for way in ways)
    worse = [test for test in _tests(without, preloaded) if _is_worse(test, without, preloaded)]
    again = [tuple(run(unit, way, _selectable(worse)) for way in ways) for _ in range(reruns if worse else 0)]
    return Comparison(
        passed=sum(found == Outcome.PASSED for test, found in preloaded.outcomes.items() if test != FINISHED),
        skipped=sum(found == Outcome.SKIPPED for found in preloaded.outcomes.values()),
        fail_both=[
            f"{unit.name} {test} {without.titles.get(test, '')}".strip()
            for test in without.outcomes
            if _fails(test, without) and _fails(test, preloaded)
        ],
        findings=[_finding(unit, test, [(without, preloaded), *again]) for test in worse],
    )


def _tests(without: Result, preloaded: Result) -> list[str]:
    """What is to be compared: where a run did not get to its end, that it did not, and what it told before."""
    tests = list(without.outcomes | preloaded.outcomes)
    if without.finished and preloaded.finished:
        return tests
    return [test for test in tests if Outcome.ABSENT not in (without.outcome(test), preloaded.outcome(test))]


def _fails(test: str, result: Result) -> bool:
    return result.outcome(test) == Outcome.FAILED


def _is_worse(test: str, without: Result, preloaded: Result) -> bool:
    """A test that passed and is now skipped, or gone, is lost as much as one that fails."""
    if _fails(test, without):
        return False
    return _fails(test, preloaded) or (
        without.outcome(test) == Outcome.PASSED and preloaded.outcome(test) != Outcome.PASSED
    )


def _selectable(tests: list[str]) -> list[str]:
    """A whole unit has to run again where it is not known which test kept it from its end."""
    return [] if FINISHED in tests else tests


def _finding(unit: Unit, test: str, pairs: list[tuple[Result, Result]]) -> Finding:
    bare, library = ([result.outcome(test) != Outcome.PASSED for result in way] for way in zip(*pairs))
    return Finding(unit.name, test, pairs[0][1].titles.get(test, ""), len(pairs), sum(bare), sum(library))
