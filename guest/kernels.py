"""Kernels for guests, from Debian's archive, from a package or from a file. They are unpacked, never installed."""

import hashlib
import re
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from guest import GuestError, GuestUsageError

KERNELS = Path(__file__).resolve().parent.parent / ".kernels"
DEFAULT = "6.1"  # what Debian 12 boots
NEWEST = "newest"
_NAME = re.compile(r"^linux-image-((\d+\.\d+)\.\d[^-\s]*(?:-\d+)?)(-cloud)?-amd64$", re.MULTILINE)
_VERSION_POINTER = 0x20E  # in a bzImage: the offset of its version, less 0x200 (Linux Documentation/arch/x86/boot.rst)


@dataclass(frozen=True)
class Kernel:
    """A bootable image, its version as ``uname -r`` says it, and the folder that has its lib/modules, or None."""

    version: str
    image: Path
    modules: Path | None


def kernel(choice: str) -> Kernel:
    """The chosen kernel: a series such as 6.1, ``newest``, or the path of a .deb or a vmlinuz. Raises GuestError."""
    if choice == NEWEST or re.fullmatch(r"\d+\.\d+", choice):
        return _of_archive(choice)
    path = Path(choice).absolute()
    if not path.is_file():
        raise GuestUsageError(
            f"there is no kernel {choice}: name a series such as 6.1 or 6.12, {NEWEST}, or the path "
            "of a .deb or a vmlinuz"
        )
    return _of_package(path) if path.suffix == ".deb" else _of_image(path)


def newest_package(series: str, known: str) -> str | None:
    """The newest package of a series, or None. known: package names, a line each.

    The cloud flavour is taken only where the series has no other.
    """
    found = [
        (not cloud, _numbers(version), f"linux-image-{version}{cloud}-amd64")
        for version, of, cloud in _NAME.findall(known)
        if series in (of, NEWEST)
    ]
    if series == NEWEST:
        found = [entry for entry in found if entry[1][:2] == max(found, key=lambda entry: entry[1][:2])[1][:2]]
    return max(found)[2] if found else None


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)]


def _of_archive(series: str) -> Kernel:
    package = _known_package(series)
    return _unpacked(package.removeprefix("linux-image-"), lambda folder: _download(package, folder))


def _known_package(series: str) -> str:
    if not shutil.which("apt-cache"):
        raise GuestError(
            f"kernel {series}: there is no apt-cache to find it with; name the path of a .deb or a "
            "vmlinuz with --kernel"
        )
    package = newest_package(series, _run(["apt-cache", "pkgnames", "linux-image-"]))
    if not package:  # the archive's package lists are often removed from images, to save space
        _run(["apt-get", "update", "-q"])
        known = _run(["apt-cache", "pkgnames", "linux-image-"])
        package = newest_package(series, known)
    if not package:
        there = sorted({of for _, of, _ in _NAME.findall(known)}, key=_numbers)
        raise GuestUsageError(f"the archive has no kernel {series}: it has {', '.join(there) or 'none'}")
    return package


def _download(package: str, folder: Path) -> Path:
    _run(["apt-get", "download", "-q", package], folder)
    return next(folder.glob("*.deb"))


def _of_package(path: Path) -> Kernel:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
    return _unpacked(f"{path.stem}-{digest}", lambda folder: path)


def _unpacked(name: str, package: Callable[[Path], Path]) -> Kernel:
    """The kernel in KERNELS/name. Where it is missing, it is unpacked there, whole or not at all.

    package: gets the .deb into a folder, and returns its path.
    """
    place = KERNELS / name
    if not place.exists():
        KERNELS.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=KERNELS, prefix=".new-") as new:
            tree = Path(new, "tree")
            _run(["dpkg", "-x", str(package(Path(new))), str(tree)])
            _index_modules(tree)
            try:
                tree.rename(place)
            except OSError:
                if not place.exists():  # where it exists, another process has just put it there
                    raise
    return _in_tree(place)


def _index_modules(tree: Path) -> None:
    """Index the modules of an unpacked package, which brings no index. From Debian 13 on they are in /usr/lib."""
    if not (tree / "lib").exists() and (tree / "usr/lib/modules").exists():
        (tree / "lib").symlink_to("usr/lib")
    for modules in (tree / "lib/modules").glob("*"):
        _run(["depmod", "-b", str(tree), modules.name])


def _in_tree(tree: Path) -> Kernel:
    image = next((tree / "boot").glob("vmlinuz-*"), None)
    if image is None:
        raise GuestError(f"{tree} holds no boot/vmlinuz-*: remove it, and choose the package of a kernel")
    return Kernel(image.name.removeprefix("vmlinuz-"), image, tree if (tree / "lib/modules").exists() else None)


def _of_image(path: Path) -> Kernel:
    """The kernel of an image file.

    Its modules are in lib/modules beside the image, one folder up as in an unpacked package, or on the host.
    """
    version = version_of(path)
    places = [path.parent, path.parent.parent, Path("/")]
    return Kernel(version, path, next((place for place in places if (place / "lib/modules" / version).exists()), None))


def version_of(image: Path) -> str:
    """The version that ``uname -r`` will say under this image. Raises GuestUsageError for a file that is no bzImage."""
    header = image.read_bytes()[:0x10000]
    if header[0x202:0x206] != b"HdrS":
        raise GuestUsageError(f"{image} is no kernel for x86: it has no boot header; name a vmlinuz")
    start = struct.unpack_from("<H", header, _VERSION_POINTER)[0] + 0x200
    return header[start : header.index(b"\0", start)].split()[0].decode()


def _run(command: list[str], folder: Path | None = None) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip()] or ["it said nothing"]
        raise GuestError(f"{' '.join(command[:2])} failed: {said[-1].strip()}")
    return done.stdout
