"""What became of each test, read from what a suite says: JUnit XML, or TAP (the Test Anything Protocol)."""

import re
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from xml.etree import ElementTree

# A test of our own in each unit. A suite that dies or hangs has no outcome for the tests that it did not reach.
FINISHED = "(ran to its end)"

_TAP_TEST = re.compile(
    r"(?P<bad>not )?ok (?P<number>\d+)(?: -)? ?(?P<title>[^#]*)(?:# *(?P<directive>TODO|SKIP))?", re.IGNORECASE
)
_TAP_PLAN = re.compile(r"1\.\.(?P<tests>\d+)")


class Outcome(StrEnum):
    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"
    ABSENT = "absent"


@dataclass
class Result:
    """The outcome of each test of a unit, and what the suite calls it where its name is a mere number."""

    outcomes: dict[str, Outcome] = field(default_factory=dict)
    titles: dict[str, str] = field(default_factory=dict)

    def outcome(self, test: str) -> Outcome:
        return self.outcomes.get(test, Outcome.ABSENT)

    @property
    def finished(self) -> bool:
        return self.outcome(FINISHED) != Outcome.FAILED


def read_junit(report: Path, status: int) -> Result:
    """The report is written at the end: without one, the run did not get there."""
    if not report.exists():
        return Result({FINISHED: Outcome.FAILED}, {FINISHED: _end(status)})
    cases = ElementTree.parse(report).iter("testcase")
    return Result({FINISHED: Outcome.PASSED} | {case.get("name"): _junit_outcome(case) for case in cases})


def _junit_outcome(case: ElementTree.Element) -> Outcome:
    kinds = {child.tag for child in case}
    if kinds & {"failure", "error"}:
        return Outcome.FAILED
    return Outcome.SKIPPED if "skipped" in kinds else Outcome.PASSED


def read_tap(output: str, status: int) -> Result:
    """A test is known by its number: some titles contain what changes from run to run."""
    result, planned = Result(), None
    for line in output.splitlines():
        if plan := _TAP_PLAN.match(line):
            planned = int(plan["tests"])
        elif test := _TAP_TEST.match(line):
            result.outcomes[test["number"]] = _tap_outcome(test)
            result.titles[test["number"]] = test["title"].strip()
    whole = planned == len(result.outcomes) and (status == 0 or Outcome.FAILED in result.outcomes.values())
    if not whole:
        result.titles[FINISHED] = _end(status)
    result.outcomes[FINISHED] = Outcome.FAILED if not whole else Outcome.PASSED if planned else Outcome.SKIPPED
    return result


def _tap_outcome(test: re.Match) -> Outcome:
    """A test marked TODO is one that its authors know to fail."""
    if test["directive"]:
        return Outcome.SKIPPED
    return Outcome.FAILED if test["bad"] else Outcome.PASSED


def _end(status: int) -> str:
    """How a shell tells of it: past 128, the number of a signal."""
    return f"killed by signal {status - 128}" if status > 128 else f"exit status {status}"
