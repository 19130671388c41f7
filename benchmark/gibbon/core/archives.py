"""Bounds of zip archives, checked in the archive's directory before anything is unpacked."""

from __future__ import annotations

import zipfile
from pathlib import Path

from gibbon.core.errors import RequestError

SPARE = 256 << 20  # bytes that compressed entries may unpack to, whatever the size of the file
RATIO = 200  # above SPARE: how many times its size a file may unpack to; deflate reaches 1032
ENTRIES = 1_000_000


def check_unpacked_size(
    archive: zipfile.ZipFile, path: Path, *, problem: type[RequestError], ratio: float = RATIO
) -> None:
    """Raises ``problem`` if an archive would unpack to far more than it is, or is overlapping.

    Args:
        archive: the archive, opened; only its directory is read.
        path: its file.
        problem: the error to raise.
        ratio: how many times the size of the file it may unpack to, beyond `SPARE` bytes.
    """
    size = path.stat().st_size
    entries = archive.infolist()
    if len(entries) > ENTRIES:
        raise problem(f"{path}: holds {len(entries):,} entries, at most {ENTRIES:,} are read")
    packed = sum(each.compress_size for each in entries)
    if packed > size:
        raise problem(
            f"{path}: its entries take {packed:,} bytes, the file has {size:,}: they overlap, as "
            "in an archive that is made to fill the memory"
        )
    unpacked = sum(each.file_size for each in entries)
    if unpacked > max(SPARE + size, ratio * size):
        raise problem(
            f"{path}: would unpack to {unpacked / 1e9:.1f} GB from {size / 1e6:.1f} MB, as does an "
            "archive that is made to fill the memory: it is not unpacked"
        )
