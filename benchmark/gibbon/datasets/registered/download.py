"""Downloads that end: bounded in time, and whole or not at all."""

from __future__ import annotations

import socket
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path

from gibbon.core.errors import DatasetError

# A server that is silent for so long is given up.  Looking up its name has the resolver's limits.
NETWORK_TIMEOUT_S = 20.0

# What a download may end in: no network, refused, timed out, cut off, a wrong checksum, a folder
# that can't be written, a torchvision that can't be imported.
FAILURES = (
    OSError,
    HTTPException,
    RuntimeError,
    EOFError,
    ImportError,
    tarfile.TarError,
    zlib.error,
)


def download_into(
    folder: Path, download: Callable[[Path], object], *, keep: str, missing: str, remedy: str
) -> None:
    """Downloads to a temporary place, then moves what is wanted into a folder.

    An interruption leaves nothing half-written in the folder.

    Args:
        folder: where the files are wanted; made if it is not there.
        download: downloads into the folder that it is given, and checks what came.
        keep: the sub-folder of what came that is wanted; files of the same names are replaced.
        missing: what could not be found without a download, to begin the error with.
        remedy: what to do, to end the error with.

    Raises `DatasetError` where the download fails.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".download-", dir=folder) as temporary:
            with silence_bounded():
                download(Path(temporary))
            _move_files(Path(temporary) / keep, folder / keep)
    except FAILURES as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise DatasetError(
            f"{missing}, and downloading it to {folder} failed ({reason}); {remedy}"
        ) from error


def _move_files(source: Path, target: Path) -> None:
    for path in sorted(source.rglob("*")):
        if path.is_file():
            place = target / path.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            path.replace(place)


@contextmanager
def silence_bounded() -> Iterator[None]:
    """While inside, a connection that is silent for `NETWORK_TIMEOUT_S` is given up."""
    # torchvision's downloads take no time-out, so the process's default is lent to them.
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(NETWORK_TIMEOUT_S)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
