"""Detects and undoes changes to attributes of a module that are neither parameters nor buffers.

A number, a tensor or an array that a module holds takes part in its answers as a parameter does,
and torch does not know of it.  Only what a module held before is compared: what it adds in a call
is a cache.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from torch import Tensor, nn

from gibbon.models.held_values import (
    CODE,
    PLAIN,
    HeldValue,
    Place,
    held,
    is_numeric,
    is_ordinary,
    is_plain_tuple,
)

MANY = 64  # entries of a list or dict: larger ones are not compared
BOOKKEEPING = frozenset({*vars(nn.Module()), "forward"})  # which snapshots compare in other ways
OURS = ("gibbon.", "torch._dynamo.")  # wrappers that keep books of their own


class Attributes:
    """A copy of the attributes of a module and of its parts.

    >>> import torch
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
            for each in _compared((id(part), name), vars(part), name, value)
        ]

    def changed(self) -> set[Place]:
        """Returns the attributes that changed: the identity of a part, and the name."""
        return {each.place for each in self._held if each.changed()}

    def restore(self) -> None:
        """Restores all attributes."""
        for each in self._held:
            each.restore()
        self._held = [each.again() for each in self._held]


def _compared(where: Place, space: Any, key: Any, value: Any) -> Iterator[HeldValue]:
    """Yields the values that are compared of an attribute, or of an entry of it."""
    if isinstance(value, Tensor):
        if is_ordinary(value):
            yield held(where, space, key, value, counted=True)
    elif isinstance(value, np.ndarray):
        if is_numeric(value):
            yield held(where, space, key, value)
    elif isinstance(value, (*PLAIN, *CODE)) or is_plain_tuple(value):
        yield held(where, space, key, value)
    elif type(value) in (list, dict) and len(value) <= MANY:
        entries = list(value.items() if isinstance(value, dict) else enumerate(value))
        for each, entry in entries:
            if not isinstance(entry, list | dict):
                yield from _compared(where, value, each, entry)
