"""Where the built parts of the accelerator are, and building them when a source is newer."""

import fcntl
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
# The tests take another one to see which of its branches they reach: make coverage.
LIBRARY = Path(os.environ.get("FASTSOCKET_LIBRARY") or HERE / "build" / "libfsocket.so")
FINISHED = HERE / "build" / "finished"  # left by who passes the parts on without their compilers, as the image does


class BuildError(Exception):
    """The compiler refused; the message is its own."""

    exit_status = 3


class NotBuilt(Exception):
    """There is no library yet; the message says how to get it."""

    exit_status = 3


def is_finished() -> bool:
    """Whether the parts are there for good, and nothing is to be built here."""
    return FINISHED.exists()


def built_library() -> Path:
    """Raises NotBuilt."""
    if not LIBRARY.exists():
        raise NotBuilt(f"libfsocket.so is not built: make -C {HERE} {LIBRARY.relative_to(HERE)}")
    return LIBRARY


def bpf_object(name: str) -> Path:
    """The compiled BPF object of ``bpf/<name>.bpf.c``."""
    return HERE / "build" / f"{name}.bpf.o"


def build(target: str = "all") -> None:
    """Bring the library and the BPF objects up to date with ``make``, unless they are finished.

    Raises BuildError with the compiler's words.
    """
    make(HERE, target)


def make(directory: Path, target: str) -> None:
    """Bring a target of a directory's Makefile up to date, unless the parts are finished. Raises BuildError.

    Of two processes that build in one directory, the second waits for the first.
    """
    if is_finished():
        return
    with _locked(directory):
        made = subprocess.run(["make", "--no-print-directory", "-C", directory, target], capture_output=True, text=True)
    if made.returncode:
        raise BuildError(made.stderr.strip())


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """The lock goes with its descriptor (flock(2)), and so with the process that holds it."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
