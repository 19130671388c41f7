"""Remembers the files that a report has written, and what they were made from.

Drawing the figures of a TensorBoard folder takes most of the time of a run that has nothing to
compute.  Files that were made from an equal record and equal outcomes, by the same code, and that
nobody has changed since, are left alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from gibbon.core.errors import RecordError
from gibbon.core.files import read_plain_file, write_atomically
from gibbon.core.package_digest import package_digest
from gibbon.records.checksums import checked_content, file_checksum, with_checksum
from gibbon.records.gallery import gallery_file
from gibbon.records.outcomes import OUTCOMES
from gibbon.records.run import RunRecord
from gibbon.report.file_names import TENSORBOARD_FOLDER

# In a folder that nobody looks into, beside the files that take longest to draw.
WRITTEN_FILE: Final = f"{TENSORBOARD_FOLDER}/.written.json"

# What they draw may change with their version.
_LIBRARIES: Final = ("jinja2", "matplotlib", "numpy", "pillow", "tabulate", "tensorboard")
_OF_ONE_RUN: Final = {"started", "finished", "seconds", "computed_cells", "reused_cells"}


def source_digest(record: RunRecord, folder: Path) -> str:
    """Returns a digest of everything that the files of a run are made from.

    It covers the record without its times, the outcomes and pictures in the folder, and the code.
    """
    found = hashlib.sha256(package_digest().encode())
    found.update(record.model_dump_json(exclude={"provenance": _OF_ONE_RUN}).encode())
    found.update("".join(f"{name} {_version(name)}" for name in _LIBRARIES).encode())
    for digest in dict.fromkeys(row.digest for row in record.evaluations if row.digest):
        for path in (folder / OUTCOMES / f"{digest}.parquet", gallery_file(folder, digest)):
            found.update(_checksum(path).encode() + b";")
    return found.hexdigest()


def is_up_to_date(folder: Path, made_from: str, *, now: Iterable[Path]) -> bool:
    """Returns whether the files of a run were made from this, and are as they were written.

    ``now`` are the files in the folder that a report may write.
    """
    written = _written(folder)
    if written.get("made_from") != made_from:
        return False
    files: dict[str, str] = written.get("files", {})
    there = {path.relative_to(folder).as_posix() for path in now}
    return there == files.keys() and all(
        _checksum(folder / name) == checksum for name, checksum in files.items()
    )


def remember(folder: Path, made_from: str, *, files: Iterable[Path]) -> None:
    """Stores which files were written, and a digest of what they were made from."""
    checksums = {path.relative_to(folder).as_posix(): _checksum(path) for path in files}
    text = json.dumps({"made_from": made_from, "files": checksums}, indent=1)
    (folder / WRITTEN_FILE).parent.mkdir(exist_ok=True)
    write_atomically(folder / WRITTEN_FILE, with_checksum(text))


def is_damaged(path: Path) -> bool:
    """Returns whether a file of a run is not what was written; False if that is not known."""
    expected = _written(path.parent).get("files", {}).get(path.name)
    return expected is not None and _checksum(path) != expected


def _written(folder: Path) -> dict[str, Any]:
    try:
        content = checked_content(read_plain_file(folder / WRITTEN_FILE))
    except (OSError, RecordError):
        return {}
    files = content.get("files") if isinstance(content, dict) else None
    if not isinstance(files, dict) or not all(isinstance(each, str) for each in files.values()):
        return {}
    return {"made_from": content.get("made_from"), "files": files}


def _checksum(path: Path) -> str:
    try:
        return file_checksum(read_plain_file(path))
    except OSError:
        return ""


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return ""
