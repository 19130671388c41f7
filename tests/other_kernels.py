"""Sums in another order for some batch sizes, as matrix libraries choose their kernels by shape.

``pytest --other-kernels``: on any processor, a test that holds results equal to the last bit over
batch sizes fails here, and one whose network's arithmetic is exact does not.  Replaced are the
functions that networks and attacks call from Python; gradients are summed in another order, too.
Tracebacks leave them out: what raises in them is whoever called them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional


def other(inputs: Tensor) -> bool:
    """Returns whether batches of this size are summed backwards: half of all sizes are."""
    return bool(inputs.shape[0] * 40503 >> 8 & 1) if inputs.ndim else False


def _linear(inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    __tracebackhide__ = True
    if not other(inputs) or weight.ndim != 2:
        return LINEAR(inputs, weight, bias)
    turned = None if bias is None else bias.flip(0)
    return LINEAR(inputs.flip(-1), weight.flip(0, 1), turned).flip(-1)


def _conv2d(
    inputs: Tensor, weight: Tensor, bias: Tensor | None = None, *rest: Any, **named: Any
) -> Tensor:
    __tracebackhide__ = True
    groups = named.get("groups", rest[3] if len(rest) > 3 else 1)
    if not other(inputs) or inputs.ndim != 4 or groups != 1:
        return CONV2D(inputs, weight, bias, *rest, **named)
    turned = None if bias is None else bias.flip(0)
    return CONV2D(inputs.flip(1), weight.flip(0, 1), turned, *rest, **named).flip(1)


def _matmul(left: Tensor, right: Tensor) -> Tensor:
    __tracebackhide__ = True
    if not isinstance(left, Tensor) or left.ndim != 2 or right.ndim != 2 or not other(left):
        return MATMUL(left, right)
    return MATMUL(left.flip(1), right.flip(0))


def _along(what: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Returns a function that sums along a dimension in the other direction, as a softmax does."""

    def turned(inputs: Tensor, dim: int, *rest: Any, **named: Any) -> Tensor:
        __tracebackhide__ = True
        if not other(inputs):
            return what(inputs, dim, *rest, **named)
        return what(inputs.flip(dim), dim, *rest, **named).flip(dim)

    return turned


def _vector_norm(inputs: Tensor, *rest: Any, **named: Any) -> Tensor:
    __tracebackhide__ = True
    return NORM(inputs.flip(-1) if other(inputs) else inputs, *rest, **named)


LINEAR, CONV2D, MATMUL = functional.linear, functional.conv2d, torch.matmul
NORM = torch.linalg.vector_norm


def replace(patch: pytest.MonkeyPatch) -> None:
    """Replaces the functions of torch for as long as the patch lasts."""
    patch.setattr(functional, "linear", _linear)
    patch.setattr(functional, "conv2d", _conv2d)
    patch.setattr(torch, "matmul", _matmul)
    patch.setattr(Tensor, "__matmul__", _matmul)
    patch.setattr(torch.linalg, "vector_norm", _vector_norm)
    for holder in (torch, Tensor):
        for name in ("softmax", "log_softmax"):
            patch.setattr(holder, name, _along(getattr(holder, name)))
