"""Where the built parts of the accelerator are, and how they are built again when a source is newer."""

import fcntl
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
# The tests use another library to see which of its branches they reach (make coverage), or on an emulated machine.
LIBRARY = Path(os.environ.get("FASTSOCKET_LIBRARY") or (HERE / "build" / "libfsocket.so").resolve())
EMULATED = HERE / "build" / "emulated" / "libfsocket.so"
FINISHED = HERE / "build" / "finished"  # exists where the parts come without their compilers, as in the container image


class BuildError(Exception):
    """The build failed; the message is the compiler's."""

    exit_status = 3


class NotBuilt(Exception):
    """The library is not built yet; the message says how to build it."""

    exit_status = 3


class GlibcTooOld(Exception):
    """This machine's glibc is too old for the library; the message says which version the library needs."""

    exit_status = 3


def is_finished() -> bool:
    """Whether the parts came already built, so that nothing is built here."""
    return FINISHED.exists()


def built_library() -> Path:
    """The path of libfsocket.so, which can be loaded here. Raises NotBuilt, or GlibcTooOld."""
    if not LIBRARY.exists():
        remedy = (
            f"make -C {HERE} {LIBRARY.relative_to(HERE)}" if LIBRARY.is_relative_to(HERE) else f"there is no {LIBRARY}"
        )
        raise NotBuilt(f"libfsocket.so is not built: {remedy}")
    needed, present = needed_glibc(LIBRARY), glibc()
    if present < needed:
        raise GlibcTooOld("libfsocket.so needs glibc {}.{} or later, and here is {}.{}".format(*needed, *present))
    return LIBRARY


def needed_glibc(library: Path) -> tuple[int, int]:
    """The newest glibc version whose symbols a library uses. The symbols' names have the version: dlsym@GLIBC_2.34."""
    versions = re.findall(rb"\0GLIBC_(\d+)\.(\d+)(?=[.\0])", library.read_bytes())
    return max((int(major), int(minor)) for major, minor in versions)


def glibc() -> tuple[int, int]:
    """The version of this machine's glibc; (0, 0) where the machine has another libc."""
    try:
        words = os.confstr("CS_GNU_LIBC_VERSION") or ""  # as in "glibc 2.36"
    except (OSError, ValueError):
        words = ""
    found = re.search(r"(\d+)\.(\d+)", words)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def bpf_object(name: str) -> Path:
    """The path of the compiled BPF object of ``bpf/<name>.bpf.c``."""
    return HERE / "build" / f"{name}.bpf.o"


def build(target: str = "all") -> None:
    """Bring the library and the BPF objects up to date with ``make``, unless they are finished.

    Raises BuildError with the compiler's words.
    """
    make(HERE, target)


def make(directory: Path, target: str) -> None:
    """Bring a target of a directory's Makefile up to date, unless the parts are finished. Raises BuildError.

    When two processes build in one directory, the second waits for the first.
    """
    if is_finished():
        return
    with _locked(directory):
        made = subprocess.run(["make", "--no-print-directory", "-C", directory, target], capture_output=True, text=True)
    if made.returncode:
        raise BuildError(made.stderr.strip())


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Hold the lock of a directory. The kernel releases it with its descriptor (flock(2)), and so with the process."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
