"""Atomic file writes: a file is complete or it is not there."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from gibbon.core.errors import RunFolderError


def write_atomically(path: Path, content: str | bytes) -> None:
    """Writes a file under a temporary name and renames it: readers see the old or the new file.

    Raises `RunFolderError` if it can't be written.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    data = content.encode() if isinstance(content, str) else content
    try:
        temporary.write_bytes(data)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())  # before it is renamed, in case the power fails
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise RunFolderError(f"{path}: can't be written: {error.strerror or error}") from error
