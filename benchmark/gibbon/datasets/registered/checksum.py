"""Checksums: what is read is what was published, or an error that names the file."""

from __future__ import annotations

import hashlib
from pathlib import Path

from gibbon.core.errors import DatasetError


def verify_sha256(content: bytes, path: Path, *, expected: str, remedy: str) -> None:
    """Raises `DatasetError` where the SHA-256 of the content is not the expected one.

    Args:
        content: the bytes to check.
        path: where they came from, named in the error.
        expected: lower-case hexadecimal digest.
        remedy: what the reader of the error should do, a clause such as "delete the file".
    """
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        raise DatasetError(f"{path}: damaged: expected SHA-256 {expected}, found {found}; {remedy}")


def verify_md5(content: bytes, path: Path, *, expected: str, remedy: str) -> None:
    """Raises `DatasetError` where the MD5 of the content is not the expected one.

    For data whose publisher gave no better sum.  Arguments as for `verify_sha256`.
    """
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found != expected:
        raise DatasetError(f"{path}: damaged: expected MD5 {expected}, found {found}; {remedy}")
