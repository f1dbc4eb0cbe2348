"""The packages of the lab stand on floors: each imports only from those below it. Their types hold."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BELOW = {
    "fastsocket": set(),
    "records": {"fastsocket"},
    "topologies": {"records", "fastsocket"},
    "workloads": {"topologies", "fastsocket"},
    "setup": {"fastsocket"},
    "bench": {"setup", "workloads", "topologies", "records", "fastsocket"},
    "analysis": {"records", "fastsocket"},
}
PROBED = {"setup/doctor.py": {"bench"}}  # doctor tries the probes, so it stands above bench


def imported(file: Path) -> Iterator[str]:
    """The packages of the lab that a file imports, at its top or in a function."""
    for node in ast.walk(ast.parse(file.read_text())):
        match node:
            case ast.Import(names=names):
                yield from (name.name.partition(".")[0] for name in names)
            case ast.ImportFrom(module=str(module), level=0):
                yield module.partition(".")[0]


@pytest.mark.parametrize("package", BELOW)
def test_a_package_imports_only_from_below(package):
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    for file in files:
        name = str(file.relative_to(ROOT))
        others = {other for other in imported(file) if other in {*BELOW, "guest", "lab", "tests"}} - {package}
        assert others <= BELOW[package] | PROBED.get(name, set()), name


def test_the_types_hold():
    """mypy --strict, as pyproject.toml has it."""
    pytest.importorskip("mypy")
    done = subprocess.run([sys.executable, "-m", "mypy"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
