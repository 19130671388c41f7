"""The lock of a training: no other of its name writes to its folder at the same time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gibbon.core.errors import RunFolderError
from gibbon.core.lock_file import take_lock


@contextmanager
def training_lock(folder: Path, name: str) -> Iterator[None]:
    """Holds the lock of the trainings of this name in a folder, which is made, in a ``with`` block.

    The lock file is removed afterwards, and the folder, too, if nothing was written there.

    Raises `RunFolderError` if another training holds it, or the folder can't be written.
    """
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    file = folder / f".{name}.lock"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = take_lock(
            file,
            in_use=f"{folder}: another training of {name!r} is using this folder",
        )
    except (OSError, NotImplementedError) as error:
        reason = getattr(error, "strerror", None) or error
        raise RunFolderError(f"{folder}: can't be written: {reason}") from error
    try:
        yield
    finally:
        with suppress(OSError):  # Windows removes no file that is open
            file.unlink()
        lock.release()
        with suppress(OSError):  # a folder that holds a file
            for each in missing:
                each.rmdir()
