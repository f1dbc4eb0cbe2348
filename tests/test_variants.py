"""Variants of calls that servers seldom make answer as without the library: libfsocket_apps/variants.c."""

import os
import subprocess
from pathlib import Path

import pytest

from fastsocket.build import LIBRARY
from tests.harness.apps import APPS, EVERYTHING_ON

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
