r"""Nonlinear operations with their intervals and lines.

The lines of the ReLU are those of CROWN (H. Zhang, T.-W. Weng, P.-Y. Chen, C.-J. Hsieh and L.
Daniel, "Efficient neural network robustness certification with general activation functions",
NeurIPS 2018, section 3.3; https://arxiv.org/abs/1811.00866): between :math:`l < 0 < u` it lies
below the chord :math:`u (x - l) / (u - l)`, and above any line through zero with a slope in [0, 1].
The slope 1 or 0 leaves the smaller area; that of the chord is the one of Fast-Lin (Weng et al.,
ICML 2018) and of E. Wong and J. Z. Kolter, ICML 2018.  A maximum is
:math:`\max(a, b) = b + \operatorname{relu}(a - b)`, bounded by the range of the difference.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from gibbon.bounds.network import Lines, NonlinearOperation, Range, Shape
from gibbon.bounds.rounding import FLOAT32, FLOAT64_SLACK, FUNCTION_ULPS, TINY

Function = Callable[[Tensor], Tensor]


class Rectifier(NonlinearOperation):
    """The ReLU, or the leaky ReLU with a slope in [0, 1) below zero."""

    has_lines = True

    def __init__(self, shape: Shape, *, below: float = 0.0) -> None:
        self.shape = shape
        self.below = below
        self.slack = 2 * FLOAT32 if below else 0.0  # it multiplies below zero

    def values(self, *inputs: Tensor) -> Tensor:
        """Returns x, or its share below zero."""
        return _leaky(inputs[0], self.below)

    def interval(self, *ranges: Range) -> Range:
        """Returns the function of the ends."""
        ((low, high),) = ranges
        return _leaky(low, self.below), _leaky(high, self.below)

    def is_settled(self, pre: Range) -> Tensor:
        """Returns which pre-activations have a known sign."""
        return (pre[0] >= 0) | (pre[1] <= 0)

    def lines(self, pre: Range, *, parallel: bool) -> Lines:
        """Returns the chord, and a line through zero below the function."""
        chord, shift, below = _relu_lines(pre, parallel=parallel)
        # leaky(x) = below * x + (1 - below) * relu(x)
        rest = 1 - self.below
        return Lines(
            (self.below + rest * below,),
            torch.zeros_like(below),
            (self.below + rest * chord,),
            rest * shift,
        )


class Maximum(NonlinearOperation):
    """The larger of two inputs, number by number."""

    pre = (1.0, -1.0)
    has_lines = True

    def __init__(self, shape: Shape) -> None:
        self.shape = shape

    def values(self, *inputs: Tensor) -> Tensor:
        """Returns the larger numbers."""
        return torch.maximum(inputs[0], inputs[1])

    def interval(self, *ranges: Range) -> Range:
        """Returns the larger ends."""
        (low, high), (other_low, other_high) = ranges
        return torch.maximum(low, other_low), torch.maximum(high, other_high)

    def is_settled(self, pre: Range) -> Tensor:
        """Returns which differences have a known sign."""
        return (pre[0] >= 0) | (pre[1] <= 0)

    def lines(self, pre: Range, *, parallel: bool) -> Lines:
        """Returns the lines of b + relu(a - b)."""
        chord, shift, below = _relu_lines(pre, parallel=parallel)
        return Lines((below, 1 - below), torch.zeros_like(below), (chord, 1 - chord), shift)


class Convex(NonlinearOperation):
    """A convex function of one input with its smallest value at zero: a square, a size."""

    has_lines = True

    def __init__(self, function: Function, slope: Function, shape: Shape, *, exact: bool) -> None:
        self.function = function
        self.slope = slope
        self.shape = shape
        self.slack = 0.0 if exact else 2 * FLOAT32

    def values(self, *inputs: Tensor) -> Tensor:
        """Returns the function."""
        return self.function(inputs[0])

    def interval(self, *ranges: Range) -> Range:
        """Returns the function at the points of the range that are nearest and farthest to zero."""
        ((low, high),) = ranges
        nearest = torch.zeros_like(low).clamp(low, high)
        return self.function(nearest), torch.maximum(self.function(low), self.function(high))

    def lines(self, pre: Range, *, parallel: bool) -> Lines:
        """Returns the chord, and the tangent in the middle of the range."""
        low, high = pre
        middle, width = (low + high) / 2, high - low
        ends = self.function(low), self.function(high)
        chord = torch.where(width > 0, (ends[1] - ends[0]) / width.clamp(min=TINY), 0.0)
        # Through the higher one of both ends' lines, so that rounding leaves neither above it.
        shift = torch.maximum(ends[0] - chord * low, ends[1] - chord * high)
        tangent = self.slope(middle)
        touch = self.function(middle) - tangent * middle
        size = FLOAT64_SLACK * (
            ends[0].abs() + ends[1].abs() + (chord.abs() + tangent.abs()) * _size(pre)
        )
        return Lines((tangent,), touch - size, (chord,), shift + size)


class Monotone(NonlinearOperation):
    """A function of one input that never falls, bounded by its values at the ends."""

    def __init__(self, function: Function, shape: Shape, *, exact: bool) -> None:
        self.function = function
        self.shape = shape
        self.slack = 0.0 if exact else FUNCTION_ULPS * 2 * FLOAT32

    def values(self, *inputs: Tensor) -> Tensor:
        """Returns the function."""
        return self.function(inputs[0])

    def interval(self, *ranges: Range) -> Range:
        """Returns the function of the ends."""
        ((low, high),) = ranges
        return self.function(low), self.function(high)


def _leaky(values: Tensor, below: float) -> Tensor:
    return values.clamp(min=0.0) + below * values.clamp(max=0.0)


def _size(pre: Range) -> Tensor:
    return torch.maximum(pre[0].abs(), pre[1].abs())


def _relu_lines(pre: Range, *, parallel: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Returns slope and shift of the line above the ReLU, and the slope of the line below it."""
    low, high = pre
    on, off = low >= 0, high <= 0
    crossing = ~(on | off)
    chord = torch.where(crossing, high / (high - low).clamp(min=TINY), on.to(low.dtype))
    shift = torch.where(crossing, -chord * low * (1 + FLOAT64_SLACK), 0.0)
    shift = shift + torch.where(crossing, FLOAT64_SLACK * high, 0.0)
    steep = (high > -low).to(low.dtype)
    below = torch.where(crossing, chord if parallel else steep, on.to(low.dtype))
    return chord, shift, below
