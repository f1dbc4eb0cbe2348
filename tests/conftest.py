"""What all tests share: privileged ones run as root, are skipped elsewhere, and may not be skipped in CI."""

import os

import pytest

from fastsocket.build import build


@pytest.fixture(scope="session", autouse=True)
def built_accelerator():
    """The library and the BPF objects, from today's sources."""
    build()


def pytest_runtest_setup(item):
    if item.get_closest_marker("privileged") and os.geteuid() != 0:
        if os.environ.get("CI"):
            pytest.fail("privileged tests must run in CI: run it as root")
        pytest.skip("needs root")


def pytest_collection_modifyitems(items):
    """Fast unit tests first, so that a plain mistake shows at once."""
    items.sort(key=lambda item: item.get_closest_marker("privileged") is not None)
