"""Class maps, which map the names of folders or labels to a model's classes.

The order of folders is often not the order of a model's classes.  A class map is one of

- JSON, ``{"tabby": 281, ...}``: the class's index by name;
- JSON, ``["tench", "goldfish", ...]``: all names, in the order of the model's classes;
- JSON, ``{"0": ["n01440764", "tench"], ...}``: as ImageNet's is passed around; a class goes by
  either name;
- CSV with the columns ``class`` and ``index``;
- the word ``imagenet``: the names of torchvision's ImageNet models.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from gibbon.core.errors import DatasetError, suggest
from gibbon.core.plain_text import shortened, shown
from gibbon.core.reading import MAP_BYTES, expanded, parse_json, read_text_file, text_problem

IMAGENET = "imagenet"
COLUMNS = ("class", "index")
_FORMS = (
    'expected {"name": index}, a list of names, {"0": ["n01440764", "tench"]}, '
    "or a CSV file with the columns class,index"
)
_WORDNET = re.compile(r"n\d{8}")


# Of the largest classifiers; tables and memory grow with the number of classes.
MOST_CLASSES = 1_000_000
LONGEST_NUMBER = 18  # digits


def check_class_index(index: int, *, say: str) -> None:
    """Raises `DatasetError`, which begins with ``say``, if an index is above any classifier's."""
    if index >= MOST_CLASSES:
        raise DatasetError(
            f"{say} has index {index:,} among the model's classes, and at most {MOST_CLASSES:,} "
            "classes are supported"
        )


def whole_number(digits: str, *, say: str) -> int:
    """Returns the class index written in digits.  Raises `DatasetError`, which names ``say``."""
    index = int(digits) if len(digits) <= LONGEST_NUMBER else MOST_CLASSES
    check_class_index(index, say=say)
    return index


@dataclass(frozen=True)
class ClassMap:
    """Indices of classes by name.

    Args:
        written: its name in error messages.
        indices: pairs of a name and its index; of several names of one class the last one is shown.
    """

    written: str
    indices: tuple[tuple[str, int], ...]

    def index(self, name: str, *, where: str) -> int:
        """Returns the index of a class.  Raises `DatasetError` with the nearest name."""
        found = sorted({index for known, index in self.indices if known == name})
        if len(found) == 1:
            return found[0]
        if found:
            raise DatasetError(
                f"{where}: class {name!r} stands for the classes "
                f"{' and '.join(map(str, found))} in class map {self.written}: names must be "
                "unambiguous"
            )
        hint = suggest(name, {known for known, _ in self.indices})
        if self.written == IMAGENET and _WORDNET.fullmatch(name):
            hint = (
                '; torchvision knows names such as "tench" only: give a JSON file of the form '
                '{"0": ["n01440764", "tench"], ...}'
            )
        raise DatasetError(f"{where}: class {name!r} is not in class map {self.written}{hint}")

    def names(self, count: int) -> tuple[str, ...]:
        """Returns the names of the first ``count`` classes; the number of a class without one."""
        known = {index: name for name, index in self.indices}
        return tuple(known.get(index, str(index)) for index in range(count))


def read_class_map(written: str) -> ClassMap:
    """Returns the class map of a file, or torchvision's for ``imagenet``.

    Raises `DatasetError` if it can't be read or is malformed.
    """
    if written == IMAGENET:
        from torchvision.models import ResNet50_Weights

        names = ResNet50_Weights.DEFAULT.meta["categories"]
        return ClassMap(written, tuple((name, place) for place, name in enumerate(names)))
    path = expanded(written, DatasetError)
    try:
        text = read_text_file(path, DatasetError, limit=MAP_BYTES)
    except DatasetError as error:
        raise DatasetError(f"class map {error}") from error
    pairs = _from_csv(text, written) if path.suffix == ".csv" else _from_json(text, written)
    indices = tuple(pairs)
    if not indices:
        raise DatasetError(f"class map {written}: is empty")
    for name, index in indices:
        problem = text_problem(name)
        if problem:
            raise DatasetError(f"class map {written}: the class {shown(name)} {problem}")
        check_class_index(index, say=f"class map {written}: class {shown(name)}")
        if index < 0:
            raise DatasetError(
                f"class map {written}: class {name!r} has index {index}: indices are positions "
                "among the model's classes, counted from 0"
            )
    return ClassMap(written, indices)


def _from_json(text: str, written: str) -> Iterator[tuple[str, int]]:
    try:
        content = parse_json(text)
    except ValueError as error:
        raise DatasetError(f"class map {written}: malformed JSON: {error}") from error
    if isinstance(content, list):
        content = {str(place): [name] for place, name in enumerate(content)}
    if not isinstance(content, dict):
        raise DatasetError(f"class map {written}: {_FORMS}, got {type(content).__name__}")
    for key, value in content.items():
        yield from _entry(key, value, written)


def _entry(key: str, value: Any, written: str) -> Iterator[tuple[str, int]]:
    if isinstance(value, int) and not isinstance(value, bool):
        yield key, value
        return
    names = value if isinstance(value, list) else [value]
    if not key.isdecimal() or not names or not all(isinstance(name, str) for name in names):
        try:
            text = shortened(json.dumps({key: value}, ensure_ascii=False))
        except RecursionError:
            text = shown({key: value})
        raise DatasetError(f"class map {written}: {text}: {_FORMS}")
    for name in names:
        yield name, whole_number(key, say=f"class map {written}: class {shown(name)}")


def _from_csv(text: str, written: str) -> Iterator[tuple[str, int]]:
    reader = csv.DictReader(text.splitlines(), skipinitialspace=True)
    try:
        yield from _rows(reader, written)
    except csv.Error as error:
        raise DatasetError(f"class map {written}: not a CSV file: {error}") from error


def _rows(reader: csv.DictReader[str], written: str) -> Iterator[tuple[str, int]]:
    header = [name.strip() for name in reader.fieldnames or ()]
    if any(name not in header for name in COLUMNS):
        raise DatasetError(
            f"class map {written}: its first line must be a header with class,index, found "
            f"{shown(','.join(header))}"
        )
    reader.fieldnames = header
    for row in reader:
        name, index = ((row[column] or "").strip() for column in COLUMNS)
        where = f"class map {written}, line {reader.line_num}"
        try:
            number = int(index) if len(index) <= LONGEST_NUMBER else MOST_CLASSES
        except ValueError:
            raise DatasetError(
                f"{where}: index must be a whole number, got {shown(index)}"
            ) from None
        check_class_index(number, say=f"{where}: index {shown(index)}")
        yield name, number
