"""Atomic file writes, where a file is complete or not there, and errors of reading files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gibbon.core.errors import RequestError, RunFolderError

StrPath = str | os.PathLike[str]


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


@contextmanager
def reading(path: Path, problem: type[RequestError]) -> Iterator[None]:
    """Turns errors of reading a file into a ``problem`` that names it, for a ``with`` block."""
    try:
        yield
    except OSError as error:
        raise problem(f"{path}: can't be read: {error.strerror or error}") from error
