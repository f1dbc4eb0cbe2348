"""Variants of calls that servers seldom make answer as without the library: libfsocket_apps/variants.c."""

import errno
import os
import subprocess
from pathlib import Path

import pytest

from fastsocket.build import LIBRARY
from tests.harness.apps import APPS, EVERYTHING_ON
from tests.harness.system_calls import Failing

EPOLL_CTL_ADD = 1

pytestmark = [pytest.mark.timeout(60), pytest.mark.needs("gcc")]


@pytest.fixture(scope="module")
def program(tmp_path_factory) -> Path:
    compiled = tmp_path_factory.mktemp("variants") / "variants"
    subprocess.run(["gcc", "-o", compiled, APPS / "variants.c", "-lpthread"], check=True)
    return compiled


def said(program: Path, variant: str, **environment: str) -> str:
    done = subprocess.run(
        [program, variant], env={**os.environ, **environment}, capture_output=True, text=True, timeout=20
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_each_variant_answers_as_without_the_library(program):
    variants = subprocess.run([program], capture_output=True, text=True, check=True).stdout.splitlines()
    alone = {variant: said(program, variant) for variant in variants}
    assert len(alone) > 20 and all(alone.values())
    for settings in ({}, EVERYTHING_ON, {"FSOCKET": "off"}):
        assert {variant: said(program, variant, LD_PRELOAD=str(LIBRARY), **settings) for variant in variants} == alone


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.ENOMEM])
def test_a_connection_that_the_epoll_has_no_room_for_is_reported_all_the_same(program, tmp_path, error):
    """Its registration was put off, and then fails."""
    variant = "a connection added with a high number"
    fails = Failing(tmp_path)("epoll_ctl", error, a1=EPOLL_CTL_ADD, a2=(100, 500))
    assert said(program, variant, **EVERYTHING_ON, **fails) == said(program, variant)
