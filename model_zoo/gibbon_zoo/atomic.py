"""Writes files atomically, and makes their folders."""

from __future__ import annotations

from pathlib import Path

from gibbon.core.files import unwritable, write_atomically


def write_in_folder(path: Path, content: bytes) -> None:
    """Writes a file atomically, and makes its folder if it is missing.

    Raises `RunFolderError` if it can't be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(path, error) from error
    write_atomically(path, content)
