"""Answers of a model to a sample of the dataset, which loading it gives without further passes."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from gibbon.datasets.base import Batch
from gibbon.diagnostics.examination.closeness import COARSE_TOLERANCE, TOLERANCE
from gibbon.models.repeatability import Cause


@dataclass(frozen=True, eq=False)
class OtherAnswers:
    """Answers to some of the sample's examples in other circumstances.

    Args:
        count: number of examples.
        difference: the largest relative difference from the answers in the sample (see
            `relative_difference`); infinite if the model raised an exception.
        changed: number of examples whose predicted class is another.
        error: the exception that the model raised; empty if none.
    """

    count: int
    difference: float = 0.0
    changed: int = 0
    error: str = ""


@dataclass(frozen=True, eq=False)
class Nearby:
    """Outputs and input gradients a little off the sample's examples, inside of the bounds.

    Args:
        inputs: shape (M, *input_shape), of the first M examples.
        outputs: shape (N, K), of all examples, made while gradients are recorded.
        gradient: shape (M, *input_shape): of `OutputRule.ascent`; None if there is no gradient.
        zero: bool, shape (N,): whether the gradient is zero in every coordinate.
    """

    inputs: Tensor
    outputs: Tensor
    gradient: Tensor | None
    zero: Tensor


@dataclass(frozen=True, eq=False)
class Observed:
    """Answers of a model to a sample, on the CPU.

    Args:
        sample: N examples.
        outputs: shape (N, K).
        steady: whether it answers the same inputs alike each time.
        repeats: whether it does so if random numbers start from the same seed.
        cause: why it does not answer alike; None if it does.
        changed: number of examples whose predicted class differed between two calls.
        nearby: answers and gradients off the examples; None if there are none.
        alone: single examples compared with the same ones in the batch.
        with_gradients: examples compared with gradients recorded and not recorded.
        coarse: whether numbers have fewer digits than float32's, so that more is rounding.
    """

    sample: Batch
    outputs: Tensor
    steady: bool = True
    repeats: bool = True
    cause: Cause | None = None
    changed: int = 0
    nearby: Nearby | None = None
    alone: OtherAnswers | None = None
    with_gradients: OtherAnswers | None = None
    coarse: bool = False

    @property
    def tolerance(self) -> float:
        """The largest relative difference of answers that rounding explains."""
        return COARSE_TOLERANCE if self.coarse else TOLERANCE
