"""The distance between two answers to the same inputs, and what rounding explains of it."""

from __future__ import annotations

import torch
from torch import Tensor

EPSILON = torch.finfo(torch.float32).eps

# Largest relative difference of two answers that rounding explains.  Sums in another order differ
# by 1e-7 to 1e-5 of the outputs' range in float32, in deep networks too; by some percent in
# bfloat16, whose numbers have 8 bits.
TOLERANCE = 2e-3
COARSE_TOLERANCE = 0.15
RESOLUTION = 1e3  # roundings that a difference of outputs must exceed to count as their range


def relative_difference(outputs: Tensor, others: Tensor) -> Tensor:
    """Returns the largest difference of each example's outputs, relative to the outputs' range.

    Args:
        outputs: shape (N, K).
        others: shape (N, K): other answers to the same inputs.

    Returns float64, shape (N,).  The range of an example is that between its largest and smallest
    output; the median over the examples is taken if it is larger.  NaN counts as an infinite
    difference, unless both are NaN.

    >>> relative_difference(torch.tensor([[0.0, 2.0]]), torch.tensor([[0.0, 1.5]]))
    tensor([0.2500], dtype=torch.float64)
    """
    one, other = outputs.double(), others.double()
    spread = one.amax(1) - one.amin(1)
    size = one.abs().amax().nan_to_num(0.0)
    floor = torch.clamp(size * EPSILON * RESOLUTION, min=torch.finfo(torch.float32).tiny)
    spread = spread.nan_to_num(0.0)
    scale = torch.maximum(torch.maximum(spread, spread.median()), floor)
    gap = (one - other).abs()
    gap = torch.where(one.isnan() & other.isnan(), 0.0, gap).nan_to_num(torch.inf)
    return gap.amax(1) / scale
