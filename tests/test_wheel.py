"""The wheel: installed where nothing can be compiled, it accelerates a server."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fastsocket import build, shared_memory
from fastsocket.build import LIBRARY, needed_glibc
from tests.harness.cpus import NEEDS_TWO_CPUS
from tests.harness.servers import NGINX_WORKERS, served

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.needs("gcc")  # and what comes with it: objdump, readelf


def run(*command: str | Path, **options) -> str:
    done = subprocess.run(command, capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    run(*pip, "wheel", "--quiet", "--no-build-isolation", "--no-deps", "--wheel-dir", directory, ROOT)
    (made,) = directory.iterdir()
    return made


@pytest.fixture(scope="module")
def commands(wheel, tmp_path_factory) -> Path:
    """PATH of a machine that has the command fastsocket from the wheel, nginx, and no compiler."""
    environment = tmp_path_factory.mktemp("environment")
    venv.create(environment)
    python = environment / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", wheel)
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    (environment / "bin" / "nginx").symlink_to(shutil.which("nginx"))
    return environment / "bin"


def under_fastsocket(prepare: Callable[[Path, int], list[str]], commands: Path) -> Callable[[Path, int], list[str]]:
    return lambda directory, port: [str(commands / "fastsocket"), "run", "--strict", "--", *prepare(directory, port)]


@pytest.mark.needs("nginx")
@NEEDS_TWO_CPUS
def test_nginx_runs_accelerated_from_the_wheel(commands, tmp_path):
    server = replace(
        NGINX_WORKERS,
        prepare=under_fastsocket(NGINX_WORKERS.prepare, commands),
        environment={"PATH": str(commands)},
    )
    with served(server, tmp_path, preload=False) as one:
        library = Path(run(commands / "fastsocket", "path", env={"PATH": str(commands)}).strip())
        assert library.is_relative_to(commands.parent)
        assert str(library) in Path(f"/proc/{one.pid}/maps").read_text()
        assert [cpu.adopted for cpu in shared_memory.counters(one.pid) if cpu.adopted] == [1, 1]


def test_the_wheel_is_for_machines_that_have_what_the_library_takes_from_libc(wheel):
    symbols = run("objdump", "--dynamic-syms", LIBRARY)
    newest = max(tuple(map(int, version.split("."))) for version in re.findall(r"\(GLIBC_([\d.]+)\)", symbols))
    assert needed_glibc(LIBRARY) == newest[:2] <= (2, 34)  # docs/library.md says so
    assert wheel.name.endswith(f"-py3-none-manylinux_{newest[0]}_{newest[1]}_{os.uname().machine}.whl")


def test_an_older_libc_is_named(monkeypatch):
    monkeypatch.setattr(build, "glibc", lambda: (2, 31))
    with pytest.raises(build.GlibcTooOld, match=r"libfsocket\.so needs glibc 2\.\d+ or later, and here is 2\.31"):
        build.built_library()


def test_what_the_library_is_linked_to_cannot_be_written_later():
    """Full RELRO: the table of libc's addresses is filled in at load, and read-only from then on."""
    assert re.search(r"\bFLAGS\b.*\bBIND_NOW\b", run("readelf", "--dynamic", LIBRARY))
    assert "GNU_RELRO" in run("readelf", "--segments", LIBRARY)
