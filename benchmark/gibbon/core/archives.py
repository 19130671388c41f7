"""Bounds of zip archives, checked in the archive's directory before anything is unpacked.

An archive that torch reads is looked through by Python's reader first, so that both must find the
same directory in it (`check_directory`).
"""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gibbon.core.errors import RequestError
from gibbon.core.plain_text import shortened

SPARE = 256 << 20  # bytes that compressed entries may unpack to, whatever the size of the file
RATIO = 200  # above SPARE: how many times its size a file may unpack to; deflate reaches 1032
ENTRIES = 1_000_000

# The records at the end of an archive (APPNOTE.TXT of PKWARE, 4.3.14 to 4.3.16).
END, END_MARK = struct.Struct("<4s4H2LH"), b"PK\5\6"
LOCATOR, LOCATOR_MARK = struct.Struct("<4sLQL"), b"PK\6\7"
END64, END64_MARK = struct.Struct("<4sQ2H2L4Q"), b"PK\6\6"
AMBIGUOUS = "its directory is ambiguous: readers may find other entries in it than were checked"


def check_directory(path: Path, *, problem: type[RequestError]) -> None:
    """Raises ``problem`` unless every reader of zip archives finds the same directory in a file.

    The last records of the file must be those of one directory that ends where they begin, without
    a comment, and a reference to a 64-bit record must be to the one in front of it.
    """
    with path.open("rb") as file:
        file.seek(0, 2)
        size = file.tell()
        length = LOCATOR.size + END64.size + END.size
        file.seek(max(0, size - length))
        tail = file.read()
    if len(tail) < END.size:
        raise problem(f"{path}: {AMBIGUOUS}")
    end = END.unpack(tail[-END.size :])
    place, offset, directory = size - END.size, end[6], end[5]
    sound = end[0] == END_MARK and end[7] == 0
    locator = tail[-END.size - LOCATOR.size : -END.size]
    if locator.startswith(LOCATOR_MARK) and len(tail) == length:
        record = END64.unpack(tail[: END64.size])
        place = size - length
        offset, directory = record[9], record[8]
        sound &= record[0] == END64_MARK and LOCATOR.unpack(locator)[2] == place
    if not sound or offset + directory != place:
        raise problem(f"{path}: {AMBIGUOUS}")


def is_archive(path: Path) -> bool:
    """Returns whether a file is meant as a zip archive, even if it is a damaged one."""
    try:
        return zipfile.is_zipfile(path)
    except Exception:  # noqa: BLE001  the end of an archive that is damaged may raise any error
        return True


@contextmanager
def opened_archive(
    path: Path, *, problem: type[RequestError], what: str
) -> Iterator[zipfile.ZipFile]:
    """Opens a zip archive of torch within bounds, for a ``with`` block that reads its entries.

    Args:
        path: its file.
        problem: the error to raise for whatever is wrong with it: a damaged archive may raise any
            error, at its directory and at each entry.
        what: what the file should be, such as ``"a TorchScript file"``.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            check_unpacked_size(archive, path, problem=problem)
            check_directory(path, problem=problem)
            yield archive
    except RequestError:
        raise
    except Exception as error:
        reason = shortened(str(getattr(error, "strerror", None) or error)) or type(error).__name__
        raise problem(f"{path}: damaged, or not {what}: {reason}") from error


def check_unpacked_size(
    archive: zipfile.ZipFile, path: Path, *, problem: type[RequestError], ratio: float = RATIO
) -> None:
    """Raises ``problem`` if an archive would unpack to far more than its size, or entries overlap.

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
