"""Keeps the first answers of a model, so that a later change of its answers can be noticed."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class FirstAnswers:
    """Inputs of one of the first calls of a model, and the outputs that it returned.

    A model may count calls or examples in a place that can't be put back, such as a global
    variable, and answer otherwise once it has seen a few.

    Args:
        inputs: shape (N, *input_shape).
        outputs: shape (N, K), made without gradients.
    """

    inputs: Tensor
    outputs: Tensor
