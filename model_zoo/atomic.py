"""Files that are there whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from benchmark.errors import RunFolderError


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file by way of a temporary one beside it, so that a kill leaves the old or the new.

    Makes the folder where it is missing.  Raises `RunFolderError` where it can't be written.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with draft.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as error:
        raise RunFolderError(f"{path}: can't be written: {error.strerror or error}") from error
