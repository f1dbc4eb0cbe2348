"""Files that only root can read and write, in such directories. Root will act on them later, so they must be trusted.

Files get the modes given here, whatever the umask is. An existing file is trusted only where it belongs to root or the
caller, and others cannot write it. Symbolic links are not followed. FIFOs are refused, because root would wait there.
"""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fastsocket.steering.command import Refused
from fastsocket.users import user_name

DIRECTORY, FILE = 0o700, 0o600
OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
MOST_BYTES = 4 << 20


@contextmanager
def directory(path: Path, make: bool = False) -> Iterator[int]:
    """Open a directory, and yield its descriptor. make: make it and its parent where they are missing.

    Raises Refused, FileNotFoundError.
    """
    if make:
        for missing in (path.parent, path):
            _make(missing)
    descriptor = _open(path, os.O_RDONLY | os.O_DIRECTORY, None)
    try:
        _trust(descriptor, path, stat.S_ISDIR, "directory")
        yield descriptor
    finally:
        os.close(descriptor)


def _make(path: Path) -> None:
    try:
        os.mkdir(path, DIRECTORY)
    except FileExistsError:
        pass
    except OSError as error:
        raise Refused(
            f"cannot make {path}: {error.strerror}: run this as root, where {path.parent} can be written"
        ) from error
    with directory(path) as descriptor:
        if stat.S_IMODE(os.fstat(descriptor).st_mode) != DIRECTORY:
            os.fchmod(descriptor, DIRECTORY)  # an older version made it, or the umask removed some of the bits


@contextmanager
def opened(path: Path, flags: int, parent: int) -> Iterator[int]:
    """Open a file, and yield its descriptor. parent: its directory's descriptor. Raises Refused, FileNotFoundError."""
    descriptor = _open(path, flags, parent)
    try:
        _trust(descriptor, path, stat.S_ISREG, "regular file")
        yield descriptor
    finally:
        os.close(descriptor)


def _open(path: Path, flags: int, parent: int | None) -> int:
    """A descriptor of a file. O_NONBLOCK opens a FIFO at once; _trust() refuses it then. Raises Refused."""
    flags |= os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        return os.open(path if parent is None else path.name, flags, FILE, dir_fd=parent)
    except FileNotFoundError:
        raise
    except PermissionError as error:
        raise Refused(f"cannot open {path}: run this as root") from error
    except OSError as error:
        is_another = error.errno in (errno.ELOOP, errno.ENOTDIR, errno.ENXIO)
        reason = "it is a symbolic link, or something else than it should be" if is_another else error.strerror
        raise Refused(f"cannot trust {path}: {reason}; remove it") from error


def _trust(descriptor: int, path: Path, is_right: Callable[[int], bool], kind: str) -> None:
    status = os.fstat(descriptor)
    if not is_right(status.st_mode):
        raise Refused(f"cannot trust {path}: it is no {kind}; remove it")
    if status.st_uid not in (0, os.geteuid()):
        raise Refused(f"cannot trust {path}: it belongs to {user_name(status.st_uid)}; remove it")
    if status.st_mode & OTHERS_WRITE:
        raise Refused(f"cannot trust {path}: others can write it (mode {stat.S_IMODE(status.st_mode):o}); remove it")


def read(path: Path) -> bytes:
    """The content of a file. Raises Refused, FileNotFoundError."""
    with directory(path.parent) as parent, opened(path, os.O_RDONLY, parent) as descriptor:
        content = os.read(descriptor, MOST_BYTES)
        if len(content) == MOST_BYTES:
            raise Refused(f"cannot trust {path}: it has more than {MOST_BYTES} bytes; remove it")
        return content


def replace(path: Path, content: bytes) -> None:
    """Replace a file, whole or not at all. Raises Refused, FileNotFoundError."""
    new = path.with_suffix(".new")
    with directory(path.parent) as parent:
        with suppress(FileNotFoundError):
            os.unlink(new.name, dir_fd=parent)  # a process that was killed may have left it
        with opened(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, parent) as descriptor:
            os.fchmod(descriptor, FILE)
            with open(descriptor, "wb", closefd=False) as file:
                file.write(content)
        os.rename(new.name, path.name, src_dir_fd=parent, dst_dir_fd=parent)


def remove(path: Path) -> None:
    """Remove a file, if it exists. Raises Refused."""
    with suppress(FileNotFoundError), directory(path.parent) as parent:
        os.unlink(path.name, dir_fd=parent)
