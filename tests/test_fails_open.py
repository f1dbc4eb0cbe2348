"""Every call that the library makes fails in turn: no client notices, and the server ends as without the library."""

import errno
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import count, product
from pathlib import Path

import pytest

from fastsocket.build import LIBRARY
from fastsocket.processes import children
from tests.harness.apps import EVERYTHING_ON, App
from tests.harness.cpus import CPUS, NEEDS_TWO_CPUS
from tests.harness.delays import stopped
from tests.harness.failing_places import FailingPlaces
from tests.harness.servers import Served, nginx, served
from tests.harness.successors import reload_nginx, upgrade_nginx
from tests.harness.two_workers import request, two_workers

ALL_ON = EVERYTHING_ON | {"FSOCKET_BALANCE": "on"}
REQUESTS = 5  # from each CPU, each time
NGINX = nginx("nginx", main="user root; env LD_PRELOAD; env FAIL; env RECORD;", pid_file="nginx.pid")
# Why the kernel refuses, by the call: the manual pages of section 2. Any of them may be forbidden by a filter: EPERM.
ALWAYS = {
    "bind": [errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.ENOMEM],
    "connect": [errno.ECONNREFUSED, errno.EADDRNOTAVAIL, errno.EAGAIN],
    "epoll_create1": [errno.EMFILE, errno.ENFILE, errno.ENOMEM],
    "epoll_ctl": [errno.ENOMEM, errno.ENOSPC],
    "fcntl": [errno.EAGAIN, errno.EMFILE, errno.EINTR, errno.ENOLCK],
    "fopen": [errno.EMFILE, errno.ENFILE, errno.ENOENT, errno.ENOMEM],
    "fstat": [errno.ENOMEM],
    "ftruncate": [errno.EINTR, errno.EFBIG],
    "getsockname": [errno.ENOBUFS],
    "getsockopt": [errno.ENOPROTOOPT, errno.ENOMEM],
    "listen": [errno.EADDRINUSE, errno.ENOBUFS],
    "madvise": [errno.EINVAL, errno.ENOMEM],
    "memfd_create": [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSYS],
    "mmap": [errno.ENOMEM, errno.EAGAIN],
    "open": [errno.EMFILE, errno.ENFILE, errno.ENOENT, errno.EACCES, errno.EINTR],
    "openat": [errno.EMFILE, errno.ENFILE, errno.ENOENT, errno.EACCES, errno.EINTR],
    "opendir": [errno.EMFILE, errno.ENFILE, errno.ENOENT, errno.EACCES, errno.ENOMEM],
    "poll": [errno.EINTR, errno.ENOMEM],
    "read": [errno.EINTR, errno.EIO],
    "readlinkat": [errno.EACCES, errno.ENOENT],
    "recv": [errno.EINTR, errno.EAGAIN, errno.ENOBUFS],
    "sched_setaffinity": [errno.EINVAL],
    "send": [errno.EINTR, errno.EAGAIN, errno.ENOBUFS, errno.ECONNREFUSED],
    "setsockopt": [errno.ENOPROTOOPT, errno.ENOMEM, errno.ENOBUFS],
    "socket": [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.EAFNOSUPPORT],
    "syscall": [errno.ENOSYS],
}
# The application sees these, and tries again.
ONCE = {"accept4": [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ECONNABORTED]}
# The descriptor is closed all the same: close(2).
AFTER = {"close": [errno.EINTR, errno.EIO, errno.ENOSPC]}
SHORT = {"read", "recv", "send"}

pytestmark = [pytest.mark.needs("gcc"), NEEDS_TWO_CPUS]


@pytest.fixture(scope="module")
def failing(tmp_path_factory) -> FailingPlaces:
    return FailingPlaces(tmp_path_factory.mktemp("failing"))


@dataclass(frozen=True)
class Scenario:
    """run: with an environment, in a directory; what the server logged. programs: how many may log one reason each."""

    run: Callable[[dict[str, str], Path], list[str]]
    places_at_least: int
    programs: int = 1


def two_workers_of_which_one_is_stopped(program: list[str], switches: dict[str, str]) -> Scenario:
    """Both accept, then one alone, then both again."""

    def run(environment: dict[str, str], directory: Path) -> list[str]:
        lines: list[str] = []
        with ExitStack() as running:
            app = running.enter_context(two_workers(program, environment | switches, log=None))
            running.callback(lambda: lines.extend(app.log().splitlines()))
            ask_both(app)
            with stopped(children(app.process)[0]):
                ask_both(app)
            ask_both(app)
        return lines

    return Scenario(run, 60)


def ask_both(app: App) -> None:
    for cpu in CPUS * REQUESTS:
        assert request(app.port, cpu) == b"ok"


def nginx_with_successors(switches: dict[str, str]) -> Scenario:
    """A worker is stopped, the workers are replaced, and the program is, too."""

    def run(environment: dict[str, str], directory: Path) -> list[str]:
        with served(replace(NGINX, environment=environment | switches), directory, preload=False) as one:
            with stopped(one.workers()[0]):
                ask(one)
            for happen in (reload_nginx, upgrade_nginx):
                happen(one)
                ask(one)
            return [line for line in one.log().splitlines() if line.startswith("libfsocket: ")]

    return Scenario(run, 90, programs=2)


def ask(one: Served) -> None:
    assert all(one.answers() for _ in CPUS * REQUESTS)


def failures(place: str, is_long: bool) -> Iterator[str]:
    """What FAIL says of this place."""
    call = place.partition("@")[0]
    usual = [errno.EPERM, *ALWAYS.get(call, [])] if call not in ONCE | AFTER else []
    found = [*product(["always"], usual), *product(["once"], usual + ONCE.get(call, []))]
    found += product(["after"], AFTER.get(call, []))
    found += [("short", 0)] if call in SHORT else []
    return (f"{place} {how} {error}" for how, error in (found if is_long else found[:1]))


def what_went_wrong(scenario: Scenario, environment: dict[str, str], directory: Path) -> str | None:
    try:
        lines = scenario.run(environment, directory)
    except (AssertionError, OSError) as error:
        return repr(error)
    foreign = [line for line in lines if not line.startswith("libfsocket: ")]
    return next(iter(foreign + [line for line in lines if lines.count(line) > scenario.programs]), None)


def where(place: str) -> str:
    """In the source: addr2line(1)."""
    command = ["addr2line", "-s", "-f", "-i", "-e", LIBRARY, f"0x{int(place.partition('@')[2], 16) - 1:x}"]
    return " ".join(subprocess.run(command, capture_output=True, text=True).stdout.split())


def assert_fails_open(scenario: Scenario, failing: FailingPlaces, directory: Path, is_long: bool) -> None:
    places, fresh = places_reached(scenario, failing, directory), directories(directory)
    assert len(places) >= scenario.places_at_least
    wrong = [
        f"{failure} {where(place)}: {found}"
        for place in places
        for failure in failures(place, is_long)
        if (found := what_went_wrong(scenario, failing.environment(FAIL=failure), next(fresh)))
    ]
    assert not wrong, "\n".join(wrong)


def places_reached(scenario: Scenario, failing: FailingPlaces, directory: Path) -> list[str]:
    record = directory / "reached"
    assert what_went_wrong(scenario, failing.environment(RECORD=str(record)), directory) is None
    return sorted(set(record.read_text().split()))


def directories(within: Path) -> Iterator[Path]:
    """A new one each time."""
    for number in count():
        (within / str(number)).mkdir()
        yield within / str(number)


@pytest.mark.timeout(3600)
def test_no_client_notices_that_a_call_of_the_library_fails(two_workers_program, failing, tmp_path, is_long):
    """The long variant has all errors and switches, and nginx."""
    scenarios = [two_workers_of_which_one_is_stopped(two_workers_program, {})]
    if is_long:
        scenarios += [two_workers_of_which_one_is_stopped(two_workers_program, ALL_ON)]
        scenarios += [nginx_with_successors(switches) for switches in ({}, ALL_ON)]
    for number, scenario in enumerate(scenarios):
        (tmp_path / str(number)).mkdir()
        assert_fails_open(scenario, failing, tmp_path / str(number), is_long)


def test_a_place_that_is_to_fail_fails(two_workers_program, failing, tmp_path):
    """So that the test above can fail."""
    scenario = two_workers_of_which_one_is_stopped(two_workers_program, {})
    (place,) = (found for found in places_reached(scenario, failing, tmp_path) if found.startswith("memfd_create@"))
    (line,) = scenario.run(failing.environment(FAIL=f"{place} always {errno.EMFILE}"), tmp_path)
    assert line.startswith("libfsocket: no memory to share with the workers (Too many open files)")
