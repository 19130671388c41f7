"""Lock files, so that two processes don't write to one folder."""

from __future__ import annotations

from pathlib import Path

from filelock import FileLock, Timeout

from gibbon.core.errors import RunFolderError


def take_lock(file: Path, *, in_use: str) -> FileLock:
    """Returns the lock of a lock file, which is made if there is none; the caller releases it.

    The file stays: whether it is locked is known to the system alone.

    Raises `RunFolderError` with the text ``in_use`` if another process holds it, or if the file is
    a link; and OSError or NotImplementedError if the folder can't be written, or has no locks.
    """
    if file.is_symlink():  # somebody else's file must not be emptied
        raise RunFolderError(f"{file}: is a link: remove it")
    lock = FileLock(file)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise RunFolderError(in_use) from None
    return lock
