"""Lists image files and their labels: from a folder of class folders, or a CSV file.

An example id is the position in the listing: of a folder, sorted by the class folder's name and
then by the file's; of a CSV file, in the order of its rows.

Without a class map the folders' names, sorted, are the classes, one for one the model's, see
`gibbon.datasets.class_order`.  With one (see `gibbon.datasets.class_map`), or with numbers for
labels in the CSV file, labels count among the model's own classes, of which a folder may hold a
few.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gibbon.core.errors import DatasetError
from gibbon.core.files import reading
from gibbon.core.plain_text import printable, shortened, shown
from gibbon.core.reading import RECORD_BYTES, check_regular, expanded, is_special
from gibbon.datasets.class_map import ClassMap
from gibbon.datasets.class_order import (
    POSITIONS,
    ClassOrder,
    OrderedClasses,
    check_class_index,
    is_number,
    order_classes,
    order_sentence,
    whole_number,
)

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm")
COLUMNS = ("path", "label")
FOLDERS = "class folders"
UNKNOWN = "none"  # the only class of images that belong to no class
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
        class_order: how names became labels.
        notes: sentences about the files passed over.
    """

    root: Path
    paths: tuple[Path, ...]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    partial: bool
    class_order: str = ""
    notes: tuple[str, ...] = ()

    def say(self, path: Path) -> str:
        """Returns the name of an image in error messages."""
        return str(path.relative_to(self.root) if path.is_relative_to(self.root) else path)


def list_folder(root: Path, class_map: ClassMap | None, order: ClassOrder | None = None) -> Listing:
    """Returns the images of a folder of class folders.  Hidden files and folders are skipped.

    ``order`` gives the order of the classes without a class map.

    Raises `DatasetError` if there are too few classes, one is empty or not in the class map, or
    their order is ambiguous.
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
    classes = (
        class_map.order(
            {folder.name: str(folder) for folder in folders}, rule=_by_class_map(class_map)
        )
        if class_map
        else order_classes([each.name for each in folders], order, where=str(root), what=FOLDERS)
    )
    return _listing(root, paths, names, classes, notes=tuple(notes))


def list_pictures(place: Path) -> Listing:
    """Returns the images of a folder, in whatever folders, or of the column ``path`` of a CSV file.

    They belong to no class; their labels are 0, and are not read.  Of a folder they are sorted by
    their path in it; hidden files and folders are skipped.

    Raises `DatasetError` if there is no image, or one that a CSV file names is missing.
    """
    if place.is_dir():
        found, others = _all_pictures(place)
        notes = (f"Skipped {_listed(others)}, which are no pictures.",) if others else ()
        if not found:
            raise DatasetError(f"{place}: no picture ({', '.join(SUFFIXES)}) in it")
        root = place
    else:
        rows = _rows(place, columns=COLUMNS[:1])
        found = _present_files(place, [each[0] for each in rows.values()])
        root, notes = place.parent, ()
    labels = np.zeros(len(found), dtype=np.int64)
    return Listing(root, tuple(found), labels, (UNKNOWN,), partial=True, notes=notes)


def _all_pictures(folder: Path) -> tuple[list[Path], list[str]]:
    """Returns the images of a folder and of all folders in it, and the names of other files."""
    found: list[Path] = []
    others: list[str] = []
    for each in _entries(folder):
        if each.is_dir() and not each.is_symlink():  # a link may lead back to where it is
            more, strays = _all_pictures(each)
            found += more
            others += strays
        elif each.suffix.lower() in SUFFIXES:
            found.append(each)
        else:
            others.append(each.name)
    return found, others


def list_csv(path: Path, class_map: ClassMap | None, order: ClassOrder | None = None) -> Listing:
    """Returns the images of a CSV file with the columns ``path`` and ``label``.

    Paths are relative to the file's folder, or absolute.  Labels are positions among the model's
    classes (``3.0`` is 3), or names.  Numbers that the class map has as names are names.

    Raises `DatasetError` if it is not such a file, images are missing, a label is negative, no
    whole number or not in the class map, or the order of names is ambiguous.
    """
    rows = _rows(path)
    found = _present_files(path, [each[0] for each in rows.values()])
    written = {line: label for line, (_, label) in rows.items()}
    classes = _csv_classes(path, written, class_map, order)
    return _listing(path.parent, found, list(written.values()), classes)


def _present_files(path: Path, written: Sequence[str]) -> list[Path]:
    """Returns the images that a CSV file names.  Raises `DatasetError` if one is no file."""
    found = [expanded(path.parent / expanded(each, DatasetError), DatasetError) for each in written]
    special = next((each for each in found if is_special(each)), None)
    if special is not None:
        raise DatasetError(f"{path}: {special}: is no file, but a folder, a pipe or a device")
    missing = [each for each in found if not each.is_file()]
    if missing:
        raise DatasetError(
            f"{path}: {len(missing):,} of {len(found):,} pictures are not there: "
            f"{_listed([str(each) for each in missing])}; paths are relative to the CSV file's "
            "folder, or absolute"
        )
    return found


def _csv_classes(
    path: Path, written: dict[int, str], class_map: ClassMap | None, order: ClassOrder | None
) -> OrderedClasses:
    """Returns the label of each text in the column of labels; ``written`` holds them by line."""
    lines = {label: line for line, label in reversed(written.items())}
    numbers = {label: is_number(label) for label in lines}
    are_numbers = all(numbers.values())
    if class_map is not None:
        keys = {label: class_map.key(label) for label in lines}
        if not are_numbers or any(key is not None for key in keys.values()):
            places = {label: f"{path}, line {line}" for label, line in lines.items()}
            return class_map.order(places, rule=_by_class_map(class_map))
    if are_numbers:
        _check_numbers(path, lines)
        if order in (None, "index"):
            return _csv_positions(path, lines, class_map)
    elif any(numbers.values()):
        number = next(label for label in lines if numbers[label])
        name = next(label for label in lines if not numbers[label])
        raise DatasetError(
            f"{path}: line {lines[number]} has a number for a label, {shown(number)}, and "
            f"line {lines[name]} a name, {shown(name)}: give either, or a class map for the names"
        )
    elif len(lines) == 1:
        raise DatasetError(
            f"{path}: has one class only, {shown(next(iter(lines)))}, and an error rate needs at "
            "least two; if it is one of the model's classes, give its number or a class map"
        )
    return order_classes(list(lines), order, where=str(path), what="labels")


def _check_numbers(path: Path, lines: dict[str, int]) -> None:
    """Raises `DatasetError` if a label is negative or no whole number."""
    for label, line in lines.items():
        number = whole_number(label)
        if number is None:
            raise DatasetError(
                f"{path}, line {line}: label {shortened(label)} is no whole number: labels are "
                "positions among the model's classes, counted from 0, or names"
            )
        if number < 0:
            raise DatasetError(
                f"{path}, line {line}: label {shortened(str(number))}: labels are positions among "
                "the model's classes, counted from 0"
            )


def _csv_positions(path: Path, lines: dict[str, int], class_map: ClassMap | None) -> OrderedClasses:
    labels = {label: whole_number(label) or 0 for label in lines}
    for label, line in lines.items():
        check_class_index(labels[label], say=f"{path}, line {line}: label {shortened(label)}")
    count = max(labels.values()) + 1
    names = class_map.names(count) if class_map else tuple(map(str, range(count)))
    floats = any(not label.lstrip("+-").isdecimal() for label in lines)
    rule = f"{POSITIONS}{', written as decimals' if floats else ''}"
    return OrderedClasses(labels, names, partial=True, rule=rule)


def _by_class_map(class_map: ClassMap) -> str:
    return f"by the class map {class_map.shown}"


def _listing(
    root: Path,
    paths: Sequence[Path],
    names: Sequence[str],
    classes: OrderedClasses,
    *,
    notes: tuple[str, ...] = (),
) -> Listing:
    """Returns the listing of images whose classes have these names."""
    labels = np.array([classes.labels[name] for name in names], dtype=np.int64)
    used = set(labels.tolist()) if classes.partial else None
    # Labels of a class map beyond the largest one of the images need no name.
    known = classes.names[: int(labels.max()) + 1] if classes.partial else classes.names
    return Listing(
        root,
        tuple(paths),
        labels,
        known,
        partial=classes.partial,
        class_order=order_sentence(classes.rule, known, used),
        notes=notes,
    )


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


def _rows(path: Path, *, columns: Sequence[str] = COLUMNS) -> dict[int, tuple[str, ...]]:
    """Returns the columns, path and label, of every row, by line."""
    check_regular(path, DatasetError, limit=RECORD_BYTES)
    try:
        with reading(path, DatasetError), path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True, skipinitialspace=True)
            header = [name.strip() for name in reader.fieldnames or ()]
            if missing := [name for name in columns if name not in header]:
                found = shown(",".join(header) or "nothing")
                raise DatasetError(
                    f"{path}: has no column {' and no column '.join(missing)}: its first line must "
                    f"be a header with {','.join(columns)}, found {found}"
                )
            reader.fieldnames = header
            rows: dict[int, tuple[str, ...]] = {}
            for row in reader:
                values = [(row[name] or "").strip() for name in columns]
                if not all(values):
                    lacking = " and no ".join(
                        name for name, value in zip(columns, values, strict=True) if not value
                    )
                    raise DatasetError(f"{path}, line {reader.line_num}: no {lacking}")
                rows[reader.line_num] = tuple(values)
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
