"""Files that are there whole or not at all, in folders that are made for them."""

from __future__ import annotations

from pathlib import Path

from gibbon.core import files
from gibbon.core.errors import RunFolderError


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file, so that a kill leaves the old or the new, and its folder where it is missing.

    Raises `RunFolderError` where it can't be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunFolderError(f"{path}: can't be written: {error.strerror or error}") from error
    files.write_atomically(path, content)
