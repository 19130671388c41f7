"""Downloads files with a limit on time, and keeps complete downloads only."""

from __future__ import annotations

import os
import shutil
import socket
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import TypeVar

from gibbon.core.errors import DatasetError
from gibbon.core.reading import expanded
from gibbon.datasets import DataRequest

T = TypeVar("T")

# Longest silence of a server.  Looking up its name has the resolver's own limits.
NETWORK_TIMEOUT_S = 20.0

# Exceptions of a failed download: no network, connection refused, timed out or cut off, a wrong
# checksum, a folder that can't be written, a torchvision that can't be imported.
FAILURES = (
    OSError,
    HTTPException,
    RuntimeError,
    EOFError,
    ImportError,
    tarfile.TarError,
    zlib.error,
)


def find_or_download(
    find: Callable[[], T | None],
    request: DataRequest,
    *,
    download: Callable[[Path], object],
    keep: str,
    missing: str,
    remedy: str,
) -> T:
    """Returns the files that ``find`` finds, after a download if it finds none at first.

    Args:
        find: returns the files, or None if they are not all there.
        request: its folder receives the download, and it says whether downloading is allowed.
        download: downloads into the folder that it is given, and verifies the result.
        keep: sub-folder of the download to keep; files of the same names are replaced.
        missing: first part of the error message: the files, and the places searched.
        remedy: last part of the error message: how to provide the files.

    Raises `DatasetError` if the files are neither found nor downloaded.
    """
    found = find()
    if found is not None:
        return found
    if not request.download:
        raise DatasetError(f"{missing}, and downloading is switched off; {remedy}")
    folder = expanded(request.folder, DatasetError)
    download_into(folder, download, keep=keep, missing=missing, remedy=remedy)
    found = find()
    if found is None:
        raise DatasetError(f"{missing}, and the download did not bring them; {remedy}")
    return found


def download_into(
    folder: Path, download: Callable[[Path], object], *, keep: str, missing: str, remedy: str
) -> None:
    """Downloads to a temporary folder, then moves the sub-folder ``keep`` into ``folder``.

    An interruption leaves nothing half-written.  Arguments as for `find_or_download`.  Raises
    `DatasetError` if the download fails.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".download-", dir=folder) as temporary:
            with silence_bounded():
                download(Path(temporary))
            kept = Path(temporary) / keep
            if kept.is_dir():
                shutil.copytree(kept, folder / keep, copy_function=os.replace, dirs_exist_ok=True)
    except FAILURES as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise DatasetError(
            f"{missing}, and downloading it to {folder} failed ({reason}); {remedy}"
        ) from error


@contextmanager
def silence_bounded() -> Iterator[None]:
    """Sets a time limit of `NETWORK_TIMEOUT_S` for network connections."""
    # torchvision's downloads take no time-out, so the process's default is lent to them.
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(NETWORK_TIMEOUT_S)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
