"""Checksums of published files."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal

from gibbon.core.errors import DatasetError


def verify(
    content: bytes,
    path: Path,
    *,
    expected: str,
    remedy: str,
    algorithm: Literal["SHA-256", "MD5"] = "SHA-256",
) -> None:
    """Raises `DatasetError` if the checksum of the content is not the expected one.

    Args:
        content: the bytes to check.
        path: their file, named in the error.
        expected: lower-case hexadecimal digest.
        remedy: how to mend it, a clause such as "delete the file".
        algorithm: MD5 is for data whose publisher gave no better sum.
    """
    name = algorithm.replace("-", "").lower()
    found = hashlib.new(name, content, usedforsecurity=False).hexdigest()
    if found != expected:
        raise DatasetError(
            f"{path}: damaged: expected {algorithm} {expected}, found {found}; {remedy}"
        )
