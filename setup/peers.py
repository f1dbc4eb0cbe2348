"""Peers are servers that are installed only on request: the packages and wheels that workloads/peers/ names.

Like setup/packages.py, this module uses the standard library only. A wheel holds a server's own program. The lab
imports nothing from it. So each wheel gets a folder of its own, outside the virtual environment, and its program gets a
link in BIN.
"""

import os
import re
import shutil
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from setup.packages import Package, literals

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements-peers.txt"
FOLDER = ROOT / ".peers"
BIN = FOLDER / "bin"
WORKLOADS = ROOT / "workloads" / "peers"
EXPERIMENTS = ROOT / "experiments"


@dataclass(frozen=True)
class Wheel:
    """A wheel of LOCK. file: the file in it that becomes the command; * stands for parts that depend on the machine."""

    name: str
    command: str
    file: str

    @property
    def folder(self) -> Path:
        return FOLDER / self.name

    @property
    def stamp(self) -> Path:
        """The file that says from which version and hashes the wheel was installed. It is written last."""
        return FOLDER / f"{self.name}.txt"

    def locked(self) -> str:
        """The wheel's version and hashes, as the lines of LOCK. Raises LookupError."""
        found = re.search(rf"^{re.escape(self.name)}==.*(\n +--hash.*)+", LOCK.read_text(), re.MULTILINE)
        if not found:
            raise LookupError(f"{LOCK} does not have {self.name}")
        return found[0]

    def is_there(self) -> bool:
        return self.stamp.exists() and self.stamp.read_text() == self.locked()

    def link(self) -> None:
        """Make the installed program a command in BIN, and write the stamp."""
        BIN.mkdir(exist_ok=True)
        command, (program,) = BIN / self.command, self.folder.glob(self.file)
        command.unlink(missing_ok=True)
        command.symlink_to(os.path.relpath(program, BIN))
        self.stamp.write_text(self.locked())

    def remove(self) -> None:
        """Remove what an older version or an interrupted installation left."""
        self.stamp.unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)


Need = Package | Wheel


@cache
def needs() -> dict[str, list[Need]]:
    """What each peer needs, by the workload's name. All servers of a file need its ``packages`` and ``wheels``."""
    return {name: found for path in sorted(WORKLOADS.glob("*.py")) for names, found in [_read(path)] for name in names}


def _read(path: Path) -> tuple[list[str], list[Need]]:
    """The names of the workloads in a file, and what they need."""
    said = list(literals(path, "name", "packages", "wheels"))
    found: list[Need] = []
    for name, value in said:
        if name == "packages":
            found += [Package(package, command) for command, package in value.items()]
        if name == "wheels":
            found += [Wheel(wheel, command, file) for command, (wheel, file) in value.items()]
    return [value for name, value in said if name == "name"], found


def asked_for(arguments: list[str]) -> list[Need]:
    """The needs of the servers that a command line names, directly or through an experiment."""
    words = {word for argument in arguments for word in re.split("[=,]", argument)}
    if not any(argument.startswith("--workload") for argument in arguments):
        words |= {workload for word in sorted(words) for workload in _workloads(word)}
    return list(dict.fromkeys(need for name, found in needs().items() if name in words for need in found))


def _workloads(experiment: str) -> list[str]:
    """The workloads of an experiment and of its parts; an empty list for a word that names no experiment."""
    path = EXPERIMENTS / f"{experiment}.toml"
    if not re.fullmatch(r"[\w-]+", experiment) or not path.exists():
        return []
    try:
        said = tomllib.loads(path.read_text())
    except tomllib.TOMLDecodeError:  # bench/experiment.py will complain
        return []
    return [*said.get("workloads", []), *(name for part in said.get("parts", []) for name in _workloads(part))]


def first_with(need: Need) -> str:
    """The first workload that has this need."""
    return next(name for name, found in needs().items() if need in found)


def everything() -> list[Need]:
    """The needs of all peers, each once."""
    return list(dict.fromkeys(need for found in needs().values() for need in found))


if __name__ == "__main__":  # the Dockerfile asks for the names of the packages
    print(*(need.name for need in everything() if isinstance(need, Package)))
