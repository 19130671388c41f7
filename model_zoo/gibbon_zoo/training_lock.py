"""The lock of a training: no other of its name writes to its folder at the same time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gibbon.core.lock_file import take_lock
from gibbon.models.registry import TrainingResult


def train_once(
    folder: Path,
    name: str,
    *,
    finished: Callable[[], TrainingResult | None],
    train: Callable[[], TrainingResult],
) -> TrainingResult:
    """Returns the finished training in a folder, or else trains while the folder is locked.

    Args:
        folder: folder of the training.
        name: start of the names of its files.
        finished: returns the finished training in the folder, or None.
        train: trains, and writes the files.

    Raises `RunFolderError` if another training of this name holds the lock, or the folder can't be
    written.
    """
    there = finished()
    if there is None:
        with _locked(folder, name):
            there = finished() or train()  # another process may have finished it meanwhile
    return there


@contextmanager
def _locked(folder: Path, name: str) -> Iterator[None]:
    """Holds the lock of the trainings of this name in a folder, which is made, in a ``with`` block.

    The lock file is removed afterwards, and the folder, too, if nothing was written there.
    """
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    file = folder / f".{name}.lock"
    lock = take_lock(file, in_use=f"{folder}: another training of {name!r} is using this folder")
    try:
        yield
    finally:
        with suppress(OSError):  # Windows removes no file that is open
            file.unlink()
        lock.release()
        with suppress(OSError):  # a folder that holds a file
            for each in missing:
                each.rmdir()
