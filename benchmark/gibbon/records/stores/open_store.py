"""Finds the store that a path or a URL names."""

from __future__ import annotations

import os
import re
from typing import Final
from urllib.parse import unquote, urlsplit

from gibbon.core.errors import RunFolderError, SpecError
from gibbon.core.reading import expanded, shown_path
from gibbon.records.stores.local import LocalStore
from gibbon.records.stores.store import Store

URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
FILE: Final = "file"
_HERE: Final = ("", "localhost")  # hosts of a file URL


def is_url(place: str | os.PathLike[str]) -> bool:
    """Returns whether a text is a URL, and no path.

    >>> is_url("s3://bucket/run"), is_url("results/runs/mnist")
    (True, False)
    """
    return URL.match(os.fspath(place)) is not None


def open_store(place: str | os.PathLike[str]) -> Store:
    """Returns the store of a path or a URL; one of a ``file://`` URL is local.

    Nothing is read, and no library of remote stores is imported for a path.

    Raises `SpecError` for a path or a URL that names nothing, and `MissingLibraryError` if the
    library of its kind of store is not installed.

    >>> str(open_store("file:///tmp/runs/mnist"))
    '/tmp/runs/mnist'
    """
    text = os.fspath(place)
    if not text.strip():
        raise SpecError(f"expected a path or a URL, got {text!r}")
    if not is_url(text):
        return LocalStore(expanded(text, RunFolderError))
    try:
        parts = urlsplit(text)
    except ValueError as error:  # such as of [, which begins an address of IPv6
        raise SpecError(f"{shown_path(text)}: is no URL: {error}") from error
    if parts.scheme.lower() == FILE:
        if parts.netloc not in _HERE or not parts.path.strip("/"):
            raise SpecError(f"{text}: expected file:///PATH, with the path of a file or folder")
        return LocalStore(expanded(unquote(parts.path), RunFolderError))
    from gibbon.records.stores.remote import RemoteStore  # late: a path needs no fsspec

    return RemoteStore.of_url(text)
