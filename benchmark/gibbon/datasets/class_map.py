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
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from gibbon.core.errors import DatasetError, suggest
from gibbon.core.plain_text import shortened, shown
from gibbon.core.reading import MAP_BYTES, expanded, parse_json, read_text_file, text_problem
from gibbon.datasets.class_order import OrderedClasses, check_class_index, whole_number

IMAGENET = "imagenet"
COLUMNS = ("class", "index")
SHOWN = 5  # indices of one name that an error shows
_FORMS = (
    'expected {"name": index}, a list of names, {"0": ["n01440764", "tench"]}, '
    "or a CSV file with the columns class,index"
)
_WORDNET = re.compile(r"n\d{8}")


@dataclass(frozen=True)
class ClassMap:
    """Indices of classes by name.

    Args:
        written: its name in error messages.
        indices: pairs of a name and its index; of several names of one class the last one is shown.
    """

    written: str
    indices: tuple[tuple[str, int], ...]

    @cached_property
    def _by_name(self) -> dict[str, set[int]]:
        """The indices of each name: of an ambiguous one several."""
        found: dict[str, set[int]] = {}
        for name, index in self.indices:
            found.setdefault(name, set()).add(index)
        return found

    @property
    def shown(self) -> str:
        """Its name in tables: without the folders of its file."""
        return self.written if self.written == IMAGENET else Path(self.written).name

    def key(self, name: str) -> str | None:
        """Returns the name under which a class is in the map: ``3.0`` may be there as ``3``."""
        number = whole_number(name)
        return next((each for each in (name, str(number)) if each in self._by_name), None)

    def order(self, places: Mapping[str, str], *, rule: str) -> OrderedClasses:
        """Returns the labels of classes.

        Args:
            places: the place of each name, for error messages.
            rule: how names become labels.

        Raises `DatasetError` for a name that is not in the map.
        """
        labels = {name: self.index(name, where=where) for name, where in places.items()}
        return OrderedClasses(labels, self.names(max(labels.values()) + 1), partial=True, rule=rule)

    def index(self, name: str, *, where: str) -> int:
        """Returns the index of a class.  Raises `DatasetError` with the nearest name."""
        key = self.key(name)
        found = sorted(self._by_name[key]) if key is not None else []
        if len(found) == 1:
            return found[0]
        if found:
            several = " and ".join(map(str, found[:SHOWN]))
            more = f" and {len(found) - SHOWN:,} more" if len(found) > SHOWN else ""
            raise DatasetError(
                f"{where}: class {shown(name)} stands for the classes {several}{more} in class map "
                f"{self.written}: names must be unambiguous"
            )
        hint = suggest(name, self._by_name)
        if self.written == IMAGENET and _WORDNET.fullmatch(name):
            hint = (
                '; torchvision knows names such as "tench" only: give a JSON file of the form '
                '{"0": ["n01440764", "tench"], ...}'
            )
        raise DatasetError(f"{where}: class {shown(name)} is not in class map {self.written}{hint}")

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
                f"class map {written}: class {shown(name)} has index {shown(index)}: indices are "
                "positions among the model's classes, counted from 0"
            )
    return ClassMap(written, indices)


class _Pairs(list[Any]):
    """The pairs of a JSON object, in which a key may come twice."""


def _from_json(text: str, written: str) -> Iterator[tuple[str, int]]:
    try:
        content = parse_json(text, pairs=_Pairs)
    except ValueError as error:
        raise DatasetError(f"class map {written}: malformed JSON: {error}") from error
    if isinstance(content, list) and not isinstance(content, _Pairs):
        content = _Pairs((str(place), [name]) for place, name in enumerate(content))
    if not isinstance(content, _Pairs):
        raise DatasetError(f"class map {written}: {_FORMS}, got {type(content).__name__}")
    for key, value in content:
        yield from _entry(key, value, written)


def _entry(key: str, value: Any, written: str) -> Iterator[tuple[str, int]]:
    if isinstance(value, float) and value.is_integer():  # as pandas writes whole numbers
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        yield key, value
        return
    names = value if isinstance(value, list) else [value]
    index = whole_number(key) if key.isdecimal() else None
    if index is None or not names or not all(isinstance(name, str) for name in names):
        try:
            text = shortened(json.dumps({key: value}, ensure_ascii=False))
        except RecursionError:
            text = shown({key: value})
        raise DatasetError(f"class map {written}: {text}: {_FORMS}")
    for name in names:
        yield name, index


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
        number = whole_number(index)
        if number is None:
            raise DatasetError(f"{where}: index must be a whole number, got {shown(index)}")
        check_class_index(number, say=f"{where}: index {shown(index)}")
        yield name, number
