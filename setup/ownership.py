"""Give results to the owner of their folder, also when root measures: by sudo, or in a container."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class OwnershipError(Exception):
    """The file system does not let root give a file away; the message names it. Nothing is lost."""

    exit_status = 3


@contextmanager
def owned_like_its_folder(directory: Path) -> Iterator[None]:
    """Files that the with block makes in the directory belong to the directory's owner afterwards.

    A directory that does not exist yet gets the owner of the folder above it. Only root can give files away
    (chown(2)); other users own what they make. Raises OwnershipError.
    """
    directory = directory.absolute()
    missing = [path for path in (directory, *directory.parents) if not path.exists()]
    top = missing[-1] if missing else directory
    owner = (top.parent if missing else top).stat()
    try:
        yield
    finally:
        if os.geteuid() == 0 and owner.st_uid != 0:
            _give(top, owner)


def _give(top: Path, owner: os.stat_result) -> None:
    """Give root's files at and below a path to an owner; not other users' files, and not the targets of symbolic links.

    Raises OwnershipError.
    """
    for path in [top, *(Path(folder, name) for folder, folders, files in os.walk(top) for name in folders + files)]:
        try:
            if path.lstat().st_uid == 0:
                os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)
        except FileNotFoundError:  # nothing was made, or it is gone again
            continue
        except OSError as error:
            raise OwnershipError(f"{path} stays root's: {error.strerror}") from error
