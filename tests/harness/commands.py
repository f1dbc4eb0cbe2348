"""The commands as a person calls them: lab.py, fastsocket, and what each says when it refuses."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from setup.bootstrap import ROOT, needed_packages
from setup.packages import Package

LAB = [sys.executable, str(ROOT / "lab.py")]
FASTSOCKET = [sys.executable, "-m", "fastsocket"]
WITHOUT_BPF = [sys.executable, "-m", "tests.harness.without_bpf"]  # runs the command that follows
NOBODY = 65534  # its user and group number
MAPS = "/proc/self/maps"  # what a program that prints it has loaded


def lab(*arguments, **options) -> subprocess.CompletedProcess:
    return subprocess.run([*LAB, *arguments], capture_output=True, text=True, stdin=subprocess.DEVNULL, **options)


def fastsocket(*arguments, **options) -> subprocess.CompletedProcess:
    return subprocess.run(
        [*FASTSOCKET, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        **options,
    )


def assert_one_line(done: subprocess.CompletedProcess, status: int, *words: str) -> None:
    assert done.returncode == status, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    for word in words:
        assert word in done.stderr


def path_without(command: str, directory: Path, packages: Iterable[Package] = needed_packages()) -> dict[str, str]:
    """An environment whose PATH finds every command of these packages that is here, but for one."""
    for package in packages:
        if package.command != command and (path := shutil.which(package.command)):
            (directory / package.command).symlink_to(path)
    return {**os.environ, "PATH": str(directory)}


def as_nobody(function):
    """What a function returns when a process that is not root calls it."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        with suppress(BaseException):
            os.setgroups([])
            os.setresuid(NOBODY, NOBODY, NOBODY)
            os.write(writing, json.dumps(function()).encode())
        os._exit(0)
    os.close(writing)
    with open(reading) as answer:
        said = answer.read()
    os.waitpid(child, 0)
    return json.loads(said)
