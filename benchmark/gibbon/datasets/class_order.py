"""The order of classes: which label each class name gets.

torchvision's ``ImageFolder`` sorts the names of folders as text, in which ``10`` comes before
``2``; a person, a CSV file or another library may count them as numbers.  A model answers in the
order that it was trained with, so that a wrong guess renumbers the labels silently.  Names whose
order as text differs from that of their numbers are therefore refused until the user says which
one is meant, and the order that is used is described in a sentence, which is printed and stored.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from gibbon.core.errors import DatasetError
from gibbon.core.plain_text import shortened

ClassOrder = Literal["text", "numeric", "index"]

SHOWN = 12  # classes that a sentence lists
# Of the largest classifiers; tables and memory grow with the number of classes.
MOST_CLASSES = 1_000_000
LONGEST_NUMBER = 1000  # characters that are read
_BEYOND = int("9" * LONGEST_NUMBER)  # in place of a longer one
_DIGITS = re.compile(r"([+-]?)\d+")
_NUMBERED = re.compile(r"(\D*)(\d+)(\D*)", re.ASCII)
MEANINGS: dict[ClassOrder, str] = {
    "text": "names sorted as text, as torchvision's ImageFolder does",
    "numeric": "names sorted by the numbers in them",
    "index": "each name is a number, the position among the model's classes",
}
POSITIONS = "labels are positions among the model's classes"


@dataclass(frozen=True)
class OrderedClasses:
    """Names of classes with their labels.

    Args:
        labels: the label of each name.
        names: the names by label, a number for a label without a name.
        partial: whether labels count among the model's own classes, of which some may be missing.
        rule: how names became labels, as part of a sentence.
    """

    labels: dict[str, int]
    names: tuple[str, ...]
    partial: bool
    rule: str


def whole_number(text: str) -> int | None:
    """Returns the integer that a text stands for, or None; ``3.0`` is 3, as pandas writes it.

    >>> whole_number("3"), whole_number("3.0"), whole_number("3.5"), whole_number("cat")
    (3, 3, None, None)
    """
    digits = _DIGITS.fullmatch(text)
    if digits and len(text) > LONGEST_NUMBER:  # int() refuses very long texts
        return -_BEYOND if digits[1] == "-" else _BEYOND
    if digits:
        return int(text)
    value = number_in(text)
    return int(value) if value is not None and value.is_integer() else None


def is_number(text: str) -> bool:
    """Returns whether a text stands for a finite number, of any number of digits."""
    return number_in(text) is not None or whole_number(text) is not None


def number_in(text: str) -> float | None:
    """Returns the finite number that a text stands for, or None; ``1_0`` is a name."""
    if "_" in text:
        return None
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def order_classes(
    names: Collection[str], order: ClassOrder | None, *, where: str, what: str
) -> OrderedClasses:
    """Returns the label of each class name.

    Args:
        names: the names, each once.
        order: ``text`` sorts them as text, ``numeric`` by their numbers, ``index`` takes each as
            the label itself; None sorts as text if that is not ambiguous.
        where: the place of the names, for error messages.
        what: the names in error messages, such as ``"class folders"``.

    Raises `DatasetError` if no order is given and text and numbers disagree, or if names are not
    such numbers.

    >>> order_classes(["b", "a"], None, where="photos", what="class folders").labels
    {'a': 0, 'b': 1}
    """
    as_text = sorted(names)
    by_number = _by_number(names)
    if order == "index":
        return _by_index(as_text, where=where, what=what)
    if order == "numeric":
        if by_number is None:
            raise DatasetError(
                f"{where}: class_order is numeric, and the {what} are not different numbers, alone "
                f"or in one text: {_listed(as_text)}; sort them as text (--class-order text), or "
                "give a class map"
            )
        return _in_order(by_number, MEANINGS["numeric"])
    if order is None and by_number is not None and by_number != as_text:
        indices = (
            ""
            if _indices(as_text) is None
            else ("; index (--class-order index): " + MEANINGS["index"])
        )
        raise DatasetError(
            f"{where}: the {what} have numbers for names, and the order of classes is ambiguous. "
            f"As text: {_listed(as_text)}. As numbers: {_listed(by_number)}. Say which is the "
            "model's, in the option class_order (in Python DatasetSpec(..., class_order=...)): "
            "text (--class-order text), for models that were "
            "trained with torchvision's ImageFolder; numeric (--class-order numeric): "
            f"{MEANINGS['numeric']}{indices}"
        )
    return _in_order(as_text, MEANINGS["text"])


def order_sentence(rule: str, names: Sequence[str], labels: Collection[int] | None = None) -> str:
    """Returns a sentence on how names became labels, with the first and the last of them.

    ``labels`` are those with an example; all of the names if None.

    >>> order_sentence("names sorted as text", ("cat", "dog"))
    'names sorted as text: 0 is cat, 1 is dog'
    """
    wanted = range(len(names)) if labels is None else sorted(labels)
    pairs = [f"{label} is {names[label]}" for label in wanted if names[label] != str(label)]
    if not pairs:
        return rule
    if len(pairs) > SHOWN:
        pairs = [*pairs[: SHOWN - 1], f"... {pairs[-1]}"]
    return f"{rule}: {', '.join(pairs)}"


def check_class_index(index: int, *, say: str) -> None:
    """Raises `DatasetError`, which begins with ``say``, if an index is above any classifier's."""
    if index >= MOST_CLASSES:
        raise DatasetError(
            f"{say} has index {shortened(f'{index:,}')} among the model's classes, counted from 0, "
            f"and at most {MOST_CLASSES:,} classes are supported"
        )


def _in_order(names: Sequence[str], rule: str) -> OrderedClasses:
    labels = {name: place for place, name in enumerate(names)}
    return OrderedClasses(labels, tuple(names), partial=False, rule=rule)


def _by_number(names: Collection[str]) -> list[str] | None:
    """Returns names sorted by their numbers, or None if they do not differ in a number alone."""
    keys: dict[str, float] = {}
    frames = set()
    for name in names:
        value = number_in(name)
        found = _NUMBERED.fullmatch(name)
        if value is not None:
            frames.add(("", ""))
        elif found is not None:
            value = float(found[2])
            frames.add((found[1], found[3]))
        else:
            return None
        keys[name] = value
    if len(frames) != 1 or len(set(keys.values())) != len(keys):
        return None
    return sorted(keys, key=keys.__getitem__)


def _indices(names: Collection[str]) -> dict[str, int] | None:
    found = {name: whole_number(name) for name in names}
    numbers = {name: number for name, number in found.items() if number is not None}
    several = len(set(numbers.values())) != len(names)
    return None if several or min(numbers.values(), default=-1) < 0 else numbers


def _by_index(names: Sequence[str], *, where: str, what: str) -> OrderedClasses:
    labels = _indices(names)
    if labels is None:
        raise DatasetError(
            f"{where}: class_order is index, and the {what} are not different whole numbers from 0 "
            f"on: {_listed(names)}; give a class map"
        )
    largest = max(labels.values())
    check_class_index(largest, say=f"{where}: one of the {what}")
    own = {label: name for name, label in labels.items()}
    classes = tuple(own.get(label, str(label)) for label in range(largest + 1))
    return OrderedClasses(labels, classes, partial=True, rule=MEANINGS["index"])


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:SHOWN])
    return f"{shown}, ... ({len(names):,} in all)" if len(names) > SHOWN else shown
