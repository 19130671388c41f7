"""Lists image files and their labels: from a folder of class folders, or a CSV file.

An example id is the position in the listing: of a folder, sorted by the class folder's name and
then by the file's; of a CSV file, in the order of its rows.

Without a class map the folders' names, sorted, are the classes, one for one the model's.  With one
(see `gibbon.datasets.class_map`), or with numbers for labels in the CSV file, labels count among
the model's own classes, of which a folder may hold a few.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gibbon.core.errors import DatasetError
from gibbon.core.files import reading
from gibbon.core.plain_text import printable, shown
from gibbon.core.reading import RECORD_BYTES, check_regular, expanded, is_special
from gibbon.datasets.class_map import ClassMap, whole_number

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm")
COLUMNS = ("path", "label")
NAMED = 5  # of many, an error names so many


@dataclass(frozen=True)
class Listing:
    """Image files and their labels.

    Args:
        root: folder that error messages name images relative to.
        paths: the files, by example id.
        labels: int64, shape (N,).
        classes: names, by label.
        partial: whether labels count among the model's own classes.
        notes: sentences about the files passed over.
    """

    root: Path
    paths: tuple[Path, ...]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    partial: bool
    notes: tuple[str, ...] = ()

    def say(self, path: Path) -> str:
        """Returns the name of an image in error messages."""
        return str(path.relative_to(self.root) if path.is_relative_to(self.root) else path)


def list_folder(root: Path, class_map: ClassMap | None) -> Listing:
    """Returns the images of a folder of class folders.  Hidden files and folders are skipped.

    Raises `DatasetError` if there are too few classes, or one is empty or not in the class map.
    """
    entries = _entries(root)
    folders = [each for each in entries if each.is_dir()]
    _check_names(folders, root=root)
    stray = [each.name for each in entries if not each.is_dir()]
    notes = [f"Skipped {_listed(stray)} next to the class folders."] if stray else []
    if not folders:
        raise DatasetError(
            f"{root}: has no class folders: expected CLASS/PICTURE.png or .jpg, found "
            f"{_listed(stray) or 'nothing'}; for pictures in one folder give a CSV file with the "
            "columns path,label"
        )
    if len(folders) == 1 and class_map is None:
        raise DatasetError(
            f"{root}: has one class folder only, {folders[0].name!r}, and an error rate needs at "
            "least two classes; if it is one of the model's classes, say which with a class map"
        )
    paths: list[Path] = []
    names: list[str] = []
    for folder in folders:
        found, others = _pictures(folder)
        if others:
            notes.append(f"Skipped {_listed(others)} in class folder {folder.name!r}.")
        if not found and class_map is None:
            raise DatasetError(
                f"{folder}: an empty class folder: no picture ({', '.join(SUFFIXES)}) in it; "
                "remove it if the model has no such class, or give a class map"
            )
        paths += found
        names += [folder.name] * len(found)
    if not paths:
        raise DatasetError(f"{root}: no picture ({', '.join(SUFFIXES)}) in any class folder")
    index = {
        folder.name: class_map.index(folder.name, where=str(folder)) if class_map else place
        for place, folder in enumerate(folders)
    }
    labels = np.array([index[name] for name in names], dtype=np.int64)
    classes = class_map.names(int(labels.max()) + 1) if class_map else tuple(index)
    return Listing(
        root, tuple(paths), labels, classes, partial=class_map is not None, notes=tuple(notes)
    )


def list_csv(path: Path, class_map: ClassMap | None) -> Listing:
    """Returns the images of a CSV file with the columns ``path`` and ``label``.

    Paths are relative to the file's folder, or absolute.  Labels are positions among the model's
    classes, or names.

    Raises `DatasetError` if it is not such a file, images are missing, or a label is negative or
    not in the class map.
    """
    rows = _rows(path)
    found = [path.parent / expanded(written, DatasetError) for written, _ in rows.values()]
    special = next((each for each in found if is_special(each)), None)
    if special is not None:
        raise DatasetError(f"{path}: {special}: is no file, but a folder, a pipe or a device")
    missing = [each for each in found if not each.is_file()]
    if missing:
        raise DatasetError(
            f"{path}: {len(missing):,} of {len(rows):,} pictures are not there: "
            f"{_listed([str(each) for each in missing])}; paths are relative to the CSV file's "
            "folder, or absolute"
        )
    written = {line: label for line, (_, label) in rows.items()}
    numbers = [re.fullmatch(r"[+-]?\d+", label) is not None for label in written.values()]
    classes = tuple(sorted(set(written.values())))
    if class_map is not None and not all(numbers):
        labels = [class_map.index(label, where=f"{path}, line {n}") for n, label in written.items()]
    elif all(numbers):
        labels = [
            _number(label, say=f"{path}, line {line}: the label {shown(label)}")
            for line, label in written.items()
        ]
        for line, label in zip(written, labels, strict=True):
            if label < 0:
                raise DatasetError(
                    f"{path}, line {line}: label {label}: labels are positions among the model's "
                    "classes, counted from 0"
                )
    elif any(numbers):
        lines = list(written)
        number, name = lines[numbers.index(True)], lines[numbers.index(False)]
        raise DatasetError(
            f"{path}: line {number} has a number for a label, {written[number]!r}, and line "
            f"{name} a name, {written[name]!r}: give either, or a class map for the names"
        )
    elif len(classes) == 1:
        raise DatasetError(
            f"{path}: has one class only, {classes[0]!r}, and an error rate needs at least two; if "
            "it is one of the model's classes, give its number or a class map"
        )
    else:
        index = {name: place for place, name in enumerate(classes)}
        labels = [index[label] for label in written.values()]
    partial = class_map is not None or all(numbers)
    if partial:
        count = max(labels) + 1
        classes = class_map.names(count) if class_map else tuple(map(str, range(count)))
    numbered = np.array(labels, dtype=np.int64)
    return Listing(path.parent, tuple(found), numbered, classes, partial=partial)


def _number(label: str, *, say: str) -> int:
    sign = -1 if label.startswith("-") else 1
    return sign * whole_number(label.lstrip("+-"), say=say)


def _entries(folder: Path) -> list[Path]:
    with reading(folder, DatasetError):
        found = sorted(folder.iterdir(), key=lambda path: path.name)
    return [each for each in found if not each.name.startswith(".")]


def is_utf8(name: str) -> bool:
    """Returns whether the name of a file is UTF-8, as it must be in tables and records."""
    return name.isascii() or not any("\ud800" <= sign <= "\udfff" for sign in name)


def _check_names(folders: Sequence[Path], *, root: Path) -> None:
    for folder in folders:
        if not is_utf8(folder.name):
            raise DatasetError(
                f"{root}: the name of the class folder {folder.name!r} is not UTF-8: rename it, as "
                "the names of classes are in tables and records"
            )


def _pictures(folder: Path) -> tuple[list[Path], list[str]]:
    """Returns the images of a class folder, and the names of its other files."""
    found, others = [], []
    for each in _entries(folder):
        if each.is_dir():
            raise DatasetError(
                f"{folder}: a class folder with a folder {each.name!r} in it: pictures must lie in "
                "CLASS/PICTURE.png or .jpg; if this folder holds the classes, name it as the "
                "dataset"
            )
        if each.suffix.lower() in SUFFIXES:
            found.append(each)
        else:
            others.append(each.name)
    return found, others


def _rows(path: Path) -> dict[int, tuple[str, str]]:
    """Returns path and label of every row, by line."""
    check_regular(path, DatasetError, limit=RECORD_BYTES)
    try:
        with reading(path, DatasetError), path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True, skipinitialspace=True)
            header = [name.strip() for name in reader.fieldnames or ()]
            if missing := [name for name in COLUMNS if name not in header]:
                found = shown(",".join(header) or "nothing")
                raise DatasetError(
                    f"{path}: has no column {' and no column '.join(missing)}: its first line must "
                    f"be a header with path,label, found {found}"
                )
            reader.fieldnames = header
            rows: dict[int, tuple[str, str]] = {}
            for row in reader:
                values = [(row[name] or "").strip() for name in COLUMNS]
                if not all(values):
                    lacking = " and no ".join(
                        name for name, value in zip(COLUMNS, values, strict=True) if not value
                    )
                    raise DatasetError(f"{path}, line {reader.line_num}: no {lacking}")
                rows[reader.line_num] = (values[0], values[1])
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path}: is not UTF-8: {error}; save it as UTF-8") from error
    except csv.Error as error:
        raise DatasetError(f"{path}: not a CSV file: {error}") from error
    if not rows:
        raise DatasetError(f"{path}: has no rows below its header")
    return rows


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    return ", ".join(map(printable, names[:NAMED])) + more
