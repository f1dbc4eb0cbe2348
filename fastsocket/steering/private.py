"""Files that only root can write and read, in directories that only root can: what a later root will act on.

Modes are those given here; the umask does not change them. A file that exists already counts only where it belongs to
root or the caller, and others cannot write it; never through a symbolic link, never a FIFO, which would keep root
waiting.
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
    """Its descriptor. make: it and its parent, where they are missing. Raises Refused, FileNotFoundError."""
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
            os.fchmod(descriptor, DIRECTORY)  # of an older version, or under a umask that takes more away


@contextmanager
def opened(path: Path, flags: int, parent: int) -> Iterator[int]:
    """The descriptor of a file in that directory. Raises Refused, FileNotFoundError."""
    descriptor = _open(path, flags, parent)
    try:
        _trust(descriptor, path, stat.S_ISREG, "regular file")
        yield descriptor
    finally:
        os.close(descriptor)


def _open(path: Path, flags: int, parent: int | None) -> int:
    """O_NONBLOCK: a FIFO opens at once, and is refused then."""
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
    """Raises Refused, FileNotFoundError."""
    with directory(path.parent) as parent, opened(path, os.O_RDONLY, parent) as descriptor:
        content = os.read(descriptor, MOST_BYTES)
        if len(content) == MOST_BYTES:
            raise Refused(f"cannot trust {path}: it has more than {MOST_BYTES} bytes; remove it")
        return content


def replace(path: Path, content: bytes) -> None:
    """Whole or not at all. Raises Refused, FileNotFoundError."""
    new = path.with_suffix(".new")
    with directory(path.parent) as parent:
        with suppress(FileNotFoundError):
            os.unlink(new.name, dir_fd=parent)  # of one that was killed
        with opened(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, parent) as descriptor:
            os.fchmod(descriptor, FILE)
            with open(descriptor, "wb", closefd=False) as file:
                file.write(content)
        os.rename(new.name, path.name, src_dir_fd=parent, dst_dir_fd=parent)


def remove(path: Path) -> None:
    """If it is there. Raises Refused."""
    with suppress(FileNotFoundError), directory(path.parent) as parent:
        os.unlink(path.name, dir_fd=parent)
