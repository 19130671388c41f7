"""A value that a container holds under a key, with a copy of its mutable content."""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace
from types import BuiltinFunctionType, FunctionType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gibbon.core.plain_tensors import equal, version_of

Place = tuple[int, str]  # identity of the owner of a value, and its name
PLAIN = (
    *(bool, int, float, complex, str, bytes, type(None), enum.Enum, np.generic),
    *(torch.dtype, torch.device, torch.layout, torch.memory_format),
)
CODE = (FunctionType, BuiltinFunctionType, type)
COLLECTIONS = (list, dict, set, deque)
MANY_ENTRIES = 4096  # of a collection: larger ones are not compared
LARGE = 10_000_000  # numbers in a tensor or array: larger ones are not compared
_ABSENT = object()


@dataclass(frozen=True)
class HeldValue:
    """A value under a key, and a copy of its content if it may change.

    Args:
        place: whose value it is, and its name.
        space: is read and written under the key, as a dictionary is.
        key: the key.
        value: the value.
        copy: a copy of a tensor, an array or a collection; the value itself for any other.
        version: the number of in-place operations on a tensor, which must not change; None if only
            its values must not.
    """

    place: Place
    space: Any
    key: Any
    value: Any
    copy: Any
    version: int | None = None

    def changed(self) -> bool:
        """Returns whether another value is there, or this one has another content."""
        now = _at(self.space, self.key)
        if now is self.value:
            return self._has_other_content()
        if isinstance(self.value, PLAIN) and type(now) is type(self.value):
            return bool(now != self.value)
        if is_plain_tuple(self.value) and is_plain_tuple(now):
            return bool(now != self.value)
        return True

    def _has_other_content(self) -> bool:
        value = self.value
        if isinstance(value, Tensor):
            if self.copy is value:
                return False
            if _form(value) != _form(self.copy):
                return True
            counted = self.version is not None and version_of(value) != self.version
            return counted or not equal(value, self.copy)
        if isinstance(value, np.ndarray) and self.copy is not value:
            return not np.array_equal(value, self.copy, equal_nan=value.dtype.kind in "fc")
        if isinstance(value, COLLECTIONS) and self.copy is not value:
            return not _same_entries(value, self.copy)
        return False

    @torch.no_grad()
    def restore(self) -> bool:
        """Restores the value and its content, and returns whether they had changed."""
        if not self.changed():
            return False
        value = self.value
        if self.copy is not value:
            if isinstance(value, Tensor):
                if _form(value) != _form(self.copy):
                    value.data = self.copy.clone()
                value.detach().copy_(self.copy)
            elif isinstance(value, np.ndarray):
                value[...] = self.copy
            elif not _same_entries(value, self.copy):
                value.clear()
                (value.extend if isinstance(value, list | deque) else value.update)(self.copy)
        if _at(self.space, self.key) is not value:
            self.space[self.key] = value
        return True

    def again(self) -> HeldValue:
        """Returns this value after it was restored, which torch counts as an operation."""
        if self.version is not None:
            return replace(self, version=version_of(self.value))
        return self

    def renewed(self) -> HeldValue:
        """Returns the value that is there now."""
        now = _at(self.space, self.key)
        return self if now is _ABSENT else held(self.place, self.space, self.key, now)


def held(
    place: Place, space: Any, key: Any, value: Any, *, large: bool = False, counted: bool = False
) -> HeldValue:
    """Returns a value of any type, held with a copy if it has a content that may change.

    ``large`` is whether tensors and arrays of any size and kind are copied, ``counted`` whether an
    in-place operation on a tensor is a change whatever it does.
    """
    if isinstance(value, Tensor) and (large or is_ordinary(value)):
        version = version_of(value) if counted else None
        return HeldValue(place, space, key, value, value.detach().clone(), version)
    if isinstance(value, np.ndarray) and (large or is_numeric(value)):
        return HeldValue(place, space, key, value, value.copy())
    if isinstance(value, COLLECTIONS) and len(value) <= MANY_ENTRIES:
        return HeldValue(place, space, key, value, value.copy())
    return HeldValue(place, space, key, value, value)


def is_ordinary(tensor: Tensor) -> bool:
    """Returns whether a tensor is dense, plain and small enough to be compared."""
    usual = type(tensor) in (Tensor, nn.Parameter) and tensor.layout is torch.strided
    return usual and not tensor.is_meta and not tensor.is_quantized and tensor.numel() <= LARGE


def is_numeric(array: np.ndarray[Any, Any]) -> bool:
    """Returns whether an array holds numbers, few enough to be compared."""
    return array.dtype.kind in "biufc" and array.size <= LARGE


def is_plain_tuple(value: object) -> bool:
    """Returns whether a value is a tuple of numbers and words, or of such tuples."""
    return isinstance(value, tuple) and all(
        isinstance(each, PLAIN) or is_plain_tuple(each) for each in value
    )


def _same_entries(one: Any, other: Any) -> bool:
    """Returns whether two collections hold the same entries; others than plain ones by identity."""
    if len(one) != len(other):
        return False
    if isinstance(one, set):
        return bool(one == other)
    if isinstance(one, dict):
        return all(key in other and _same(each, other[key]) for key, each in one.items())
    pairs: Iterable[tuple[Any, Any]] = zip(one, other, strict=True)
    return all(_same(first, second) for first, second in pairs)


def _same(one: Any, other: Any) -> bool:
    if one is other:
        return True
    return isinstance(one, PLAIN) and type(one) is type(other) and bool(one == other)


def _at(space: Any, key: Any) -> Any:
    try:
        return space[key]
    except (KeyError, IndexError):
        return _ABSENT


def _form(tensor: Tensor) -> tuple[object, ...]:
    return tensor.shape, tensor.dtype, tensor.device
