"""Checksums of published files."""

from __future__ import annotations

import hashlib
from pathlib import Path

from gibbon.core.errors import DatasetError


def verify_sha256(content: bytes, path: Path, *, expected: str, remedy: str) -> None:
    """Raises `DatasetError` if the SHA-256 of the content is not the expected one.

    Args:
        content: the bytes to check.
        path: their file, named in the error.
        expected: lower-case hexadecimal digest.
        remedy: how to mend it, a clause such as "delete the file".
    """
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        raise DatasetError(f"{path}: damaged: expected SHA-256 {expected}, found {found}; {remedy}")


def verify_md5(content: bytes, path: Path, *, expected: str, remedy: str) -> None:
    """Raises `DatasetError` if the MD5 of the content is not the expected one.

    For data whose publisher gave no better sum.  Arguments as for `verify_sha256`.
    """
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found != expected:
        raise DatasetError(f"{path}: damaged: expected MD5 {expected}, found {found}; {remedy}")
