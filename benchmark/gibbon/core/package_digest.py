"""Digest of the code of Gibbon, for files that are made again when it changes."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parents[1]
TEXTS = (".py", ".html", ".css", ".js", ".md")


@cache
def package_digest() -> str:
    """Returns the SHA-256 of the files of the package that results and reports are made by."""
    found = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*")):
        if path.suffix in TEXTS:
            found.update(str(path.relative_to(PACKAGE)).encode())
            found.update(hashlib.sha256(path.read_bytes()).digest())
    return found.hexdigest()
