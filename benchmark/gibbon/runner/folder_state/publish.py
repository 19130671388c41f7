"""Calls the function that writes tables and figures into the folder of a run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from gibbon.core.files import unwritable
from gibbon.records.run import RunRecord

Publish = Callable[[RunRecord, Path], object]


def published(publish: Publish | None, record: RunRecord, path: Path) -> None:
    """Writes tables and figures of a record into a folder, if ``publish`` is given.

    Raises `RunFolderError` if it can't be written.
    """
    if publish is None:
        return
    try:
        publish(record, path)
    except OSError as error:
        raise unwritable(path, error) from error
