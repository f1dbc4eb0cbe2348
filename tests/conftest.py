"""What all tests share: privileged ones run as root, are skipped elsewhere, and may not be skipped in CI."""

import ctypes
import os
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack

import pytest

pytest.register_assert_rewrite("tests.harness")  # so that its assertions show what they compared

from bench.alone import SCOPE
from fastsocket.build import build
from setup.bootstrap import complete_path
from tests.harness.apps import SANITIZED, Server, compiled, preloading
from tests.harness.commands import FASTSOCKET
from tests.harness.cpus import ALL_CPUS, CPUS
from tests.harness.needs import need, need_guests
from tests.harness.patience import give_the_lab_time, patient
from topologies.pair import Pair
from topologies.tag import RunTag
from topologies.testbed import Testbed

# A busy machine can spoil the tests of these files: they measure, are about delays, or change settings of the machine.
# All others run beside each other, but for single ones that are marked "alone".
ALONE = {
    "tests.test_attach",
    "tests.test_balance",
    "tests.test_build",
    "tests.test_differential",
    "tests.test_failing_calls",
    "tests.test_fails_open",
    "tests.test_flow_deliver",
    "tests.test_generator",
    "tests.test_groups",
    "tests.test_handover",
    "tests.test_interrupts",
    "tests.test_last_cpu",
    "tests.test_libfsocket",
    "tests.test_measure",
    "tests.test_neighbour",
    "tests.test_nic",
    "tests.test_no_connection_lost",
    "tests.test_nothing_arrives_later",
    "tests.test_patience",
    "tests.test_pause",
    "tests.test_spending",
    "tests.test_steering",
    "tests.test_stuck_worker",
    "tests.test_surroundings",
    "tests.test_trial",
    "tests.test_walk",
    "tests.test_watching_again",
}


@pytest.fixture(scope="session", autouse=True)
def built_accelerator():
    """The library and the BPF objects, from today's sources."""
    build()


@pytest.fixture(scope="session", params=["plain", "everything on", SANITIZED])
def preload(request) -> dict[str, str]:
    """The environment that loads the library."""
    return preloading(request.param)


@pytest.fixture
def server(preload):
    """tests/harness/apps.py, under the library and listening."""
    with Server(preload) as server:
        server.listen()
        yield server


@pytest.fixture(scope="session")
def two_workers_program(tmp_path_factory) -> list[str]:
    """The command of tests/harness/two_workers.py."""
    return [str(compiled("two_workers.c", tmp_path_factory.mktemp("two_workers"))), *map(str, CPUS)]


@pytest.fixture
def start():
    """Start servers under the command run, listening; each ends with the test."""
    with ExitStack() as started:

        def start_with(*options: str, launcher: Sequence[str] = ()) -> Server:
            app = started.enter_context(Server({}, launcher=[*launcher, *FASTSOCKET, "run", *options, "--"]))
            app.listen()
            return app

        yield start_with


@pytest.fixture
def tag():
    with RunTag() as made:
        yield made


@pytest.fixture
def testbed(tag):
    with Testbed(Pair(), tag, queues=len(ALL_CPUS)) as made:
        yield made


@pytest.fixture
def own_network():
    """The test in a network namespace of its own, where nobody else listens; only loopback is there."""
    libc, new_network = ctypes.CDLL(None, use_errno=True), 0x40000000
    with open("/proc/thread-self/ns/net") as before:
        assert libc.unshare(new_network) == 0, os.strerror(ctypes.get_errno())
        try:
            subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
            yield
        finally:
            assert libc.setns(before.fileno(), new_network) == 0, os.strerror(ctypes.get_errno())


def pytest_configure():
    give_the_lab_time()
    complete_path()
    os.environ[SCOPE] = f"tests of {os.getpid()}"  # other tests may measure at the same time


def pytest_addoption(parser):
    parser.addoption("--long", action="store_true", help="the long variant of every test that has one")


@pytest.fixture(scope="session")
def is_long(request) -> bool:
    """Whether the long variants were asked for."""
    return request.config.getoption("--long")


def pytest_runtest_setup(item):
    if item.get_closest_marker("privileged") and os.geteuid() != 0:
        if os.environ.get("CI"):
            pytest.fail("privileged tests must run in CI: run it as root")
        pytest.skip("needs root")
    if item.get_closest_marker("guest"):
        need_guests()
    for marker in item.iter_markers("needs"):
        need(*marker.args)


def pytest_collection_modifyitems(config, items):
    """The image and guests first, because the longest test should not begin last. Then fast unit tests, so that a plain
    mistake shows at once. And time-outs as long as it takes here."""
    items.sort(key=_turn)
    for item in items:
        if item.get_closest_marker("image") or item.get_closest_marker("guest"):
            item.add_marker(pytest.mark.slow)
        if item.module.__name__ in ALONE and not item.get_closest_marker("guest"):
            item.add_marker(pytest.mark.alone)
        marker = item.get_closest_marker("timeout")
        seconds = marker.args[0] if marker else config.getoption("timeout")
        item.add_marker(pytest.mark.timeout(patient(seconds)), append=False)


def _turn(item) -> tuple[bool, ...]:
    image, guest, privileged = (bool(item.get_closest_marker(name)) for name in ("image", "guest", "privileged"))
    return not image, not guest, privileged


def pytest_terminal_summary(terminalreporter):
    """What tests recorded as their summary, of those that passed, too."""
    lines = [
        value
        for reports in terminalreporter.stats.values()
        for report in reports
        if getattr(report, "when", "") == "call"
        for name, value in report.user_properties
        if name == "summary"
    ]
    if lines:
        terminalreporter.section("counted")
        for line in lines:
            terminalreporter.write_line(line)
