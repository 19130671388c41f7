"""Lock files, so that two processes don't write to one folder."""

from __future__ import annotations

from pathlib import Path

from filelock import FileLock, Timeout

from gibbon.core.errors import RunFolderError
from gibbon.core.files import unwritable


def take_lock(file: Path, *, in_use: str) -> FileLock:
    """Returns the lock of a lock file, which the caller releases; makes the file and its folder.

    Raises `RunFolderError` with the text ``in_use`` if another process holds it, and another one if
    the file is a link, or if the folder can't be written or has no locks.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.is_symlink():  # somebody else's file must not be emptied
            raise RunFolderError(f"{file}: is a link: remove it")
        lock = FileLock(file)
        lock.acquire(timeout=0)
    except Timeout:
        raise RunFolderError(in_use) from None
    except (OSError, NotImplementedError) as error:
        raise unwritable(file.parent, error) from error
    return lock
