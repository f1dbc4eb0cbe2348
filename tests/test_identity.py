"""A number means what the kernel says it means, also where no libc call has told of the change."""

from pathlib import Path

import pytest

from fastsocket.build import LIBRARY
from tests.harness.apps import EVERYTHING_ON, App, compiled
from tests.harness.cpus import CPUS

WAYS = [
    "epoll closed by a system call",
    "listener closed by a system call",
    "all closed by a system call",
    "epoll number reused",
    "vfork",
    "clone",
    "_Fork",
    "thread with its own table",
]  # identity.c
ENVIRONMENTS = {
    "without the library": {},
    "with the library": {"LD_PRELOAD": str(LIBRARY)},
    "with everything on": {"LD_PRELOAD": str(LIBRARY)} | EVERYTHING_ON,
}

pytestmark = [pytest.mark.timeout(30), pytest.mark.needs("gcc")]


@pytest.fixture(scope="module")
def program(tmp_path_factory) -> Path:
    return compiled("identity.c", tmp_path_factory.mktemp("identity"))


@pytest.mark.parametrize("environment", ENVIRONMENTS)
@pytest.mark.parametrize("way", WAYS)
def test_a_number_means_what_the_kernel_says(program, way, environment):
    with App([str(program), way, str(CPUS[0])], ENVIRONMENTS[environment]) as app:
        assert app.read_all() == ["ok"]
