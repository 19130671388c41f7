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

    If the block raises before it has written a file, the folder is removed again.

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
    except BaseException:
        if missing and [*folder.iterdir()] == [file]:
            with suppress(OSError):  # such as of another process that is writing there now
                file.unlink()
                for each in missing:
                    each.rmdir()
        raise
    finally:
        lock.release()
