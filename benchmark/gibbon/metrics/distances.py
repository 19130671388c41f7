"""Distances of candidates from their inputs, and the clipping of points to a box."""

from __future__ import annotations

import torch
from torch import Tensor

from gibbon.core.threat import Bounds, Norm


def distances(candidates: Tensor, inputs: Tensor, *, norm: Norm) -> Tensor:
    """Returns the norm of each example's perturbation, shape (N,), in the inputs' units.

    NaN or infinite candidates have a NaN or infinite distance.

    >>> distances(torch.tensor([[3.0, 4.0]]), torch.zeros(1, 2), norm=Norm.L2)
    tensor([5.])
    """
    return lengths_((candidates - inputs).flatten(1), norm=norm)


def lengths_(changes: Tensor, *, norm: Norm) -> Tensor:
    """Returns the norm of each row, shape (N,), and may change the rows, shape (N, D)."""
    if norm is Norm.LINF:  # torch's own infinity norm takes ten times as long on a CPU
        return changes.abs_().amax(1)
    if norm is Norm.L1:
        return changes.abs_().sum(1)
    lengths: Tensor = torch.linalg.vector_norm(changes, dim=1)
    return lengths


def clip_(points: Tensor, bounds: Bounds | None) -> Tensor:
    """Clips points to the box in place, if there is one, and returns them."""
    return points if bounds is None else points.clamp_(bounds.low, bounds.high)


def like(values: Tensor, points: Tensor) -> Tensor:
    """Returns values of shape (N,), reshaped to broadcast against points (N, *input_shape)."""
    return values.view(-1, *(1,) * (points.ndim - 1))
