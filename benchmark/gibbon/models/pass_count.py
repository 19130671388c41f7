"""Counts of the passes of a model, which attacks and models can read and not write."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_COUNTS: dict[int, list[int]] = {}  # forward and backward passes, by the identity of a count


class PassCount:
    """Passes made, counted by example: one batch of 100 forward is 100 forward passes.

    The numbers are no attributes of it, so that the code of others, which gets classifiers, does
    not change them by accident or to look cheap.

    >>> passes = PassCount(forward=2)
    >>> add_passes(passes, backward=3)
    >>> passes
    PassCount(forward=2, backward=3)
    >>> passes.forward = 0
    Traceback (most recent call last):
    AttributeError: property 'forward' of 'PassCount' object has no setter
    """

    __slots__ = ("__weakref__",)
    __hash__ = object.__hash__

    def __init__(self, forward: int = 0, backward: int = 0) -> None:
        _COUNTS[id(self)] = [forward, backward]
        weakref.finalize(self, _COUNTS.pop, id(self), None).atexit = False

    @property
    def forward(self) -> int:
        """Forward passes."""
        return _COUNTS[id(self)][0]

    @property
    def backward(self) -> int:
        """Backward passes."""
        return _COUNTS[id(self)][1]

    def __eq__(self, other: object) -> bool:
        """Returns whether another count has the same numbers."""
        if not isinstance(other, PassCount):
            return NotImplemented
        return _COUNTS[id(self)] == _COUNTS[id(other)]

    def __repr__(self) -> str:
        """Returns the numbers."""
        return f"PassCount(forward={self.forward}, backward={self.backward})"

    def __reduce__(self) -> tuple[Callable[..., PassCount], tuple[int, int]]:
        """Copies and pickles the numbers."""
        return PassCount, (self.forward, self.backward)


def add_passes(passes: PassCount, *, forward: int = 0, backward: int = 0) -> None:
    """Adds passes that were made to a count; nothing to what an attack has put in its place."""
    made = _COUNTS.get(id(passes))
    if made is not None:
        made[0] += forward
        made[1] += backward


@contextmanager
def uncounted(passes: PassCount) -> Iterator[None]:
    """Leaves the passes of a ``with`` block out of a count."""
    before = list(_COUNTS[id(passes)])
    try:
        yield
    finally:
        _COUNTS[id(passes)][:] = before
