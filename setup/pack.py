"""Make a pack: one file with the lab, its libraries and its Debian packages, for a machine without a network.

The pack is an archive of this checkout, with the built parts, and of a folder ``offline``. Where that folder exists,
setup/bootstrap.py installs from it.
"""

import hashlib
import os
import platform
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from setup.bootstrap import LOCKED, OFFLINE, REQUIREMENTS, ROOT, VENV_PYTHON
from setup.ownership import owned_like_its_folder
from setup.packages import ENVIRONMENT, MEASURING

NAME = "fastsocket-lab"
_BUILT = ("fastsocket/build", "workloads/generator/build")
_FINISHED = "fastsocket/build/finished"


class PackError(Exception):
    """The pack cannot be made here; the message says what is missing, and how to get it."""

    exit_status = 3


def pack(file: Path) -> str:
    """Write the pack, and return the machine that it is for. The parts must be built already. Raises PackError."""
    with owned_like_its_folder(file), TemporaryDirectory(dir=file.parent, prefix=f".{NAME}-") as scratch:
        offline = Path(scratch) / OFFLINE.name
        _download_wheels(offline / "wheels")
        _download_packages(offline / "packages")
        archive = Path(scratch) / "archive"
        with tarfile.open(archive, "w") as tar:
            for path in (*_sources(), *_BUILT):
                tar.add(ROOT / path, f"{NAME}/{path}", filter=_of_root)
            tar.add(os.devnull, f"{NAME}/{_FINISHED}", filter=_empty)
            tar.add(offline, f"{NAME}/{OFFLINE.name}", filter=_of_root)
        os.replace(archive, file)
    release = platform.freedesktop_os_release()["PRETTY_NAME"]
    return f"{release}, {platform.machine()}, Python {'.'.join(platform.python_version_tuple()[:2])}"


def _of_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    return member


def _empty(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Make an archive member an empty regular file. /dev/null stands in for it on this machine."""
    member.type, member.mode = tarfile.REGTYPE, 0o644
    return _of_root(member)


def _sources() -> Iterator[str]:
    """The names of the files that git tracks and that exist. Their present content is packed."""
    listed = _run("git", "-c", f"safe.directory={ROOT}", "-C", str(ROOT), "ls-files", "-z")
    yield from (name for name in listed.split("\0") if name and (ROOT / name).exists())


def _download_wheels(folder: Path) -> None:
    pip = (str(VENV_PYTHON), "-m", "pip", "download", "--quiet", "--disable-pip-version-check")
    _run(*pip, "--dest", str(folder), *LOCKED, str(REQUIREMENTS))


def _download_packages(folder: Path) -> None:
    """Download the lab's Debian packages with all dependencies, and write an index of them.

    apt gets an empty list of installed packages, so it downloads all that a bare machine needs.
    """
    with TemporaryDirectory() as scratch:
        state, status = Path(scratch) / "state", Path(scratch) / "status"
        for needed in (state / "lists" / "partial", folder / "partial"):
            needed.mkdir(parents=True)
        status.touch()
        places = {
            "Dir::State": state,
            "Dir::State::status": status,
            "Dir::Cache": scratch,
            "Dir::Cache::archives": folder,
            "APT::Sandbox::User": "root",
        }
        apt = ("apt-get", "-q", "-y", *(f"--option={name}={value}" for name, value in places.items()))
        _run(*apt, "update")
        names = [package.name for package in ENVIRONMENT + MEASURING]
        _run(*apt, "install", "--no-install-recommends", "--download-only", *names)
    (folder / "partial").rmdir()
    (folder / "lock").unlink(missing_ok=True)
    (folder / "Packages").write_text("\n".join(map(_entry, sorted(folder.glob("*.deb")))))


def _entry(package: Path) -> str:
    """The entry of a package in an index of packages (Debian policy, and apt's repository format)."""
    content = package.read_bytes()
    where = f"Filename: ./{package.name}\nSize: {len(content)}\nSHA256: {hashlib.sha256(content).hexdigest()}\n"
    return _run("dpkg-deb", "--field", str(package)) + where


def _run(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    except FileNotFoundError as error:
        raise PackError(f"there is no {command[0]} here: pack on Debian, from a checkout, with git") from error
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip()] or ["it said nothing"]
        telling = [line for line in said if line.startswith(("E:", "ERROR", "fatal:"))] or said
        raise PackError(f"{Path(command[0]).name} failed: {telling[0]} (packing needs the network, and a git checkout)")
    return done.stdout
