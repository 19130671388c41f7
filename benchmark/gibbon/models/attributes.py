"""Detects and undoes changes to attributes of a module that are neither parameters nor buffers.

A number, a tensor or an array that a module holds takes part in its answers as a parameter does,
and torch does not know of it.  Only what a module held before is compared: what it adds in a call
is a cache.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass
from types import BuiltinFunctionType, FunctionType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gibbon.core.plain_tensors import equal, version_of

PLAIN = (
    *(bool, int, float, complex, str, bytes, type(None), enum.Enum, np.generic),
    *(torch.dtype, torch.device, torch.layout, torch.memory_format),
)
CODE = (FunctionType, BuiltinFunctionType, type)
MANY = 64  # entries of a list or dict: larger ones are not compared
LARGE = 10_000_000  # numbers in a tensor or array: larger ones are not compared
BOOKKEEPING = frozenset({*vars(nn.Module()), "forward"})  # which snapshots compare in other ways
OURS = ("gibbon.", "torch._dynamo.")  # wrappers that keep books of their own
_ABSENT = object()


@dataclass(frozen=True)
class _Held:
    """A value that a container holds under a key, and a copy of its content if it may change."""

    owner: int
    name: str
    place: Any
    key: Any
    value: Any
    copy: Any
    version: int

    def changed(self) -> bool:
        now = _at(self.place, self.key)
        if isinstance(self.value, Tensor):
            if now is not self.value or _shape(now) != _shape(self.copy):
                return True
            return version_of(now) != self.version or not equal(now, self.copy)
        if isinstance(self.value, np.ndarray):
            return now is not self.value or not np.array_equal(
                now, self.copy, equal_nan=now.dtype.kind in "fc"
            )
        if now is self.value:
            return False
        if isinstance(self.value, CODE) or type(now) is not type(self.value):
            return True
        return bool(now != self.value)

    @torch.no_grad()
    def restore(self) -> None:
        if not self.changed():
            return
        if isinstance(self.value, Tensor):
            if _shape(self.value) != _shape(self.copy):
                self.value.data = self.copy.clone()
            self.value.copy_(self.copy)
        elif isinstance(self.value, np.ndarray):
            self.value[...] = self.copy
        self.place[self.key] = self.value


class Attributes:
    """A copy of the attributes of a module and of its parts.

    >>> module = nn.Identity()
    >>> module.factor, module.shift = 2.0, torch.zeros(2)
    >>> attributes = Attributes(module)
    >>> module.factor, module.calls = 3.0, 1
    >>> _ = module.shift.add_(1)
    >>> sorted(name for _, name in attributes.changed())
    ['factor', 'shift']
    >>> attributes.restore()
    >>> module.factor, module.shift
    (2.0, tensor([0., 0.]))
    """

    def __init__(self, module: nn.Module) -> None:
        self._held = [
            each
            for part in module.modules()
            if not type(part).__module__.startswith(OURS)
            for name, value in vars(part).items()
            if name not in BOOKKEEPING
            for each in _held(id(part), name, vars(part), name, value)
        ]

    def changed(self) -> set[tuple[int, str]]:
        """Returns the attributes that changed: the identity of a part, and the name."""
        return {(each.owner, each.name) for each in self._held if each.changed()}

    def restore(self) -> None:
        """Restores all attributes."""
        for each in self._held:
            each.restore()
        self._held = [
            each if not isinstance(each.value, Tensor) else _again(each) for each in self._held
        ]


def _held(owner: int, name: str, place: Any, key: Any, value: Any) -> Iterator[_Held]:
    if isinstance(value, Tensor):
        if _is_ordinary(value):
            yield _Held(owner, name, place, key, value, value.detach().clone(), version_of(value))
    elif isinstance(value, np.ndarray):
        if value.dtype.kind in "biufc" and value.size <= LARGE:
            yield _Held(owner, name, place, key, value, value.copy(), 0)
    elif isinstance(value, (*PLAIN, *CODE)) or _is_plain_tuple(value):
        yield _Held(owner, name, place, key, value, value, 0)
    elif type(value) in (list, dict) and len(value) <= MANY:
        entries = list(value.items() if isinstance(value, dict) else enumerate(value))
        for each, entry in entries:
            if not isinstance(entry, list | dict):
                yield from _held(owner, name, value, each, entry)


def _is_ordinary(tensor: Tensor) -> bool:
    usual = type(tensor) in (Tensor, nn.Parameter) and tensor.layout is torch.strided
    return usual and not tensor.is_meta and not tensor.is_quantized and tensor.numel() <= LARGE


def _is_plain_tuple(value: object) -> bool:
    return isinstance(value, tuple) and all(
        isinstance(each, PLAIN) or _is_plain_tuple(each) for each in value
    )


def _again(held: _Held) -> _Held:
    (found,) = _held(held.owner, held.name, held.place, held.key, held.value)
    return found


def _at(place: Any, key: Any) -> Any:
    try:
        return place[key]
    except (KeyError, IndexError):
        return _ABSENT


def _shape(tensor: Tensor) -> tuple[object, ...]:
    return tensor.shape, tensor.dtype, tensor.device
