"""Style and types: what ruff, mypy, clang-format and clang-tidy say of our code, and who may import whom in tests/."""

import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fastsocket.build import HERE
from tests.harness.cpus import CPUS
from tests.harness.needs import need

ROOT = HERE.parent
TESTS = ROOT / "tests"
FOLDERS = (HERE, ROOT / "workloads", TESTS)
OUR_C = [path for folder in FOLDERS for path in sorted(folder.rglob("*.[ch]")) if "build" not in path.parts]


def assert_silent(tool: str, *arguments: object) -> None:
    """Tools are in our virtual environment; the image has none."""
    need(str(Path(sys.executable).parent / tool))
    done = subprocess.run([Path(sys.executable).parent / tool, *arguments], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


def test_python_follows_the_rules_of_ruff():
    assert_silent("ruff", "check", "--quiet", ".")


def test_python_has_the_types_that_it_says():
    """Of the packages that pyproject.toml names."""
    assert_silent("mypy")


def test_python_is_formatted():
    assert_silent("ruff", "format", "--check", "--quiet", ".")


def test_c_is_formatted():
    assert len(OUR_C) > 30
    assert_silent("clang-format", "--dry-run", "-Werror", *OUR_C)


@pytest.mark.slow
def test_c_has_nothing_that_clang_tidy_warns_of():
    """A process for each file, because clang-tidy takes one after the other."""
    files = [path for path in OUR_C if path.suffix == ".c" and path.parent.name in ("libfsocket", "cost")]
    with ThreadPoolExecutor(len(CPUS)) as runs:
        list(runs.map(lambda path: assert_silent("clang-tidy", "--quiet", path, "--", "-std=gnu11"), files))


IMPORTS_A_TEST = re.compile(r"^\s*(from|import) (tests|\.)[.\w]*\btest_|^\s*from (tests|\.) import test_", re.MULTILINE)


def test_no_test_module_imports_another():
    """What several need is in tests/harness/ and tests/conftest.py."""
    assert IMPORTS_A_TEST.search("from tests.test_lab import lab") and IMPORTS_A_TEST.search("from tests import test_a")
    modules = [path for folder in (TESTS, ROOT / "guest") for path in folder.rglob("*.py")]
    assert [path.name for path in modules if IMPORTS_A_TEST.search(path.read_text())] == []
