"""What a test needs that not every machine has: skipped without, except in CI, where all of it has to be."""

import importlib.util
import os
import shutil
import socket
from pathlib import Path

import pytest

from setup.packages import GUEST

IPV6 = "IPv6 on the loopback device"  # containers have none unless they are asked to
CPYTHONS_OWN_TESTS = "CPython's package test"  # Debian has it in a package of its own


def _has_ipv6() -> bool:
    with socket.socket(socket.AF_INET6) as ours:
        try:
            ours.bind(("::1", 0))
        except OSError:
            return False
    return True


def _is_here(what: str) -> bool:
    if what == IPV6:
        return _has_ipv6()
    if what == CPYTHONS_OWN_TESTS:
        return importlib.util.find_spec("test") is not None and importlib.util.find_spec("test.test_epoll") is not None
    return Path(what).exists() if what.startswith("/") else shutil.which(what) is not None


def need_guests() -> None:
    """QEMU and what belongs to it."""
    missing = " ".join(package.name for package in GUEST if not package.is_there())
    if missing:
        _lack(f"guests need {missing}: python3 lab.py --yes guest -- true installs it")


def _lack(what: str) -> None:
    (pytest.fail if os.environ.get("CI") else pytest.skip)(what)


def need(what: str) -> None:
    """A command, a file by its full path, or one of the above."""
    if not _is_here(what):
        _lack(f"needs {what}, which is not here")
