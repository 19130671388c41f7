"""Affine operations: matrices, convolutions, means, scales, sums, and the moving of numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.grad import conv1d_input, conv2d_input, conv3d_input

from gibbon.bounds.network import AffineOperation, Shape

_CONVOLUTIONS = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
_OF_INPUT: dict[int, Callable[..., Tensor]] = {1: conv1d_input, 2: conv2d_input, 3: conv3d_input}


class Dense(AffineOperation):
    """A matrix of shape (out, in) times the last axis, plus a constant of shape (out,)."""

    products = True

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self.weight = weight
        self.size = weight.abs()
        self.bias = bias
        self.shape = (weight.shape[0],)
        self.roundings = weight.shape[1] + 2

    @property
    def work(self) -> int:
        """Number of multiplications for one example."""
        return self.weight.numel()

    def values(self, *inputs: Tensor) -> Tensor:
        """Returns W x + b."""
        return functional.linear(inputs[0], self.weight, self.bias)

    def spread(self, *sizes: Tensor) -> Tensor:
        """Returns |W| r."""
        return functional.linear(sizes[0], self.size)

    def pull(self, direction: Tensor) -> tuple[Tensor, ...]:
        """Returns the direction times W."""
        return (direction @ self.weight,)

    def constant(self) -> Tensor | None:
        """Returns b."""
        return self.bias


@dataclass(frozen=True)
class ConvolutionSetting:
    """Stride, padding, dilation (a number an axis) and the number of groups of a convolution."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int


class Convolution(AffineOperation):
    """A convolution with a kernel of shape (out, in / groups, ...), plus a constant a channel."""

    products = True

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        setting: ConvolutionSetting,
        *,
        taken: Shape,
        shape: Shape,
    ) -> None:
        self.weight = weight
        self.size = weight.abs()
        self.bias = bias
        self.setting = setting
        self.taken = taken
        self.shape = shape
        self.roundings = math.prod(weight.shape[1:]) + 2

    @property
    def work(self) -> int:
        """Number of multiplications for one example."""
        return math.prod(self.weight.shape[1:]) * math.prod(self.shape)

    def values(self, *inputs: Tensor) -> Tensor:
        """Returns W * x + b."""
        return self._convolve(inputs[0], self.weight, self.bias)

    def spread(self, *sizes: Tensor) -> Tensor:
        """Returns |W| * r."""
        return self._convolve(sizes[0], self.size, None)

    def pull(self, direction: Tensor) -> tuple[Tensor, ...]:
        """Returns the transposed convolution of the direction."""
        transposed = _OF_INPUT[len(self.setting.stride)]
        pulled: Tensor = transposed(
            (len(direction), *self.taken),
            self.weight,
            direction,
            stride=self.setting.stride,
            padding=self.setting.padding,
            dilation=self.setting.dilation,
            groups=self.setting.groups,
        )
        return (pulled,)

    def constant(self) -> Tensor | None:
        """Returns b, shape (1, out, 1, ...)."""
        return None if self.bias is None else self.bias.view(1, -1, *[1] * (len(self.shape) - 1))

    def _convolve(self, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        setting = self.setting
        convolve: Callable[..., Tensor] = _CONVOLUTIONS[len(setting.stride)]
        return convolve(
            inputs,
            weight,
            bias,
            stride=setting.stride,
            padding=setting.padding,
            dilation=setting.dilation,
            groups=setting.groups,
        )


class Scale(AffineOperation):
    """Multiplies by a factor and adds a shift, both broadcastable to (1, *shape).

    ``size`` is the sum of the sizes of the constants that are rounded with the result, if that is
    not the size of the shift alone.
    """

    mixes = False

    def __init__(
        self,
        factor: Tensor | None,
        shift: Tensor | None,
        *,
        shape: Shape,
        roundings: int,
        size: Tensor | None = None,
    ) -> None:
        self.factor = factor
        self.shift = shift
        self.shape = shape
        self.roundings = roundings
        self.size = size

    def values(self, *inputs: Tensor) -> Tensor:
        """Returns factor * x + shift."""
        scaled = inputs[0] if self.factor is None else inputs[0] * self.factor
        return scaled if self.shift is None else scaled + self.shift

    def spread(self, *sizes: Tensor) -> Tensor:
        """Returns |factor| * r."""
        return sizes[0] if self.factor is None else sizes[0] * self.factor.abs()

    def pull(self, direction: Tensor) -> tuple[Tensor, ...]:
        """Returns factor * direction."""
        return (direction if self.factor is None else direction * self.factor,)

    def constant(self) -> Tensor | None:
        """Returns the shift."""
        return self.shift

    def constant_size(self) -> Tensor | None:
        """Returns the size of the constants."""
        return super().constant_size() if self.size is None else self.size


class Add(AffineOperation):
    """A sum of several inputs of one shape, each times a number."""

    def __init__(self, factors: Sequence[float], *, shape: Shape) -> None:
        self.factors = tuple(factors)
        self.shape = shape
        self.roundings = 3

    def values(self, *inputs: Tensor) -> Tensor:
        """Returns the sum of factor times input."""
        terms = [each * factor for each, factor in zip(inputs, self.factors, strict=True)]
        return torch.stack(terms).sum(0)

    def spread(self, *sizes: Tensor) -> Tensor:
        """Returns the sum of |factor| times r."""
        terms = [each * abs(factor) for each, factor in zip(sizes, self.factors, strict=True)]
        return torch.stack(terms).sum(0)

    def pull(self, direction: Tensor) -> tuple[Tensor, ...]:
        """Returns factor times direction for each input."""
        return tuple(direction * factor for factor in self.factors)


class Gather(AffineOperation):
    """Moves, repeats or leaves out numbers: views, permutations, slices, paddings, windows.

    Args:
        index: int64, shape (*shape): for each number of the result its position among the numbers
            of all inputs, one input after the other, and after them the constants.
        sizes: number of values of each input.
        shapes: shape of each input.
        constants: float64, shape (C,): numbers that are not taken from an input.
    """

    mixes = False

    def __init__(self, index: Tensor, *, shapes: Sequence[Shape], constants: Tensor) -> None:
        self.index = index.flatten()
        self.shapes = tuple(shapes)
        self.sizes = [math.prod(each) for each in shapes]
        self.constants = constants
        self.shape = tuple(index.shape)
        counted = torch.arange(self.sizes[0], device=index.device)
        self.is_view = len(shapes) == 1 and torch.equal(self.index, counted)

    def values(self, *inputs: Tensor) -> Tensor:
        """Returns the numbers in their places."""
        return self._moved(inputs, self.constants)

    def spread(self, *sizes: Tensor) -> Tensor:
        """Returns the sizes in their places, and 0 in those of constants."""
        return self._moved(sizes, torch.zeros_like(self.constants))

    def pull(self, direction: Tensor) -> tuple[Tensor, ...]:
        """Returns for each number the sum of the coefficients of its places."""
        rows = len(direction)
        if self.is_view:
            return (direction.reshape(rows, *self.shapes[0]),)
        total = sum(self.sizes) + len(self.constants)
        whole = direction.new_zeros(rows, total).index_add_(
            1, self.index, direction.reshape(rows, -1)
        )
        parts = whole[:, : sum(self.sizes)].split(self.sizes, dim=1)  # type: ignore[no-untyped-call]
        return tuple(
            part.reshape(rows, *shape) for part, shape in zip(parts, self.shapes, strict=True)
        )

    def constant(self) -> Tensor | None:
        """Returns the constants in their places, and 0 in the others."""
        if not len(self.constants):
            return None
        zeros = [self.constants.new_zeros(1, *shape) for shape in self.shapes]
        return self._moved(zeros, self.constants)

    def _moved(self, inputs: Sequence[Tensor], constants: Tensor) -> Tensor:
        rows = len(inputs[0])
        if self.is_view:
            return inputs[0].reshape(rows, *self.shape)
        flat = [each.reshape(rows, -1) for each in inputs]
        if len(constants):
            flat.append(constants.expand(rows, -1))
        return torch.cat(flat, dim=1)[:, self.index].view(rows, *self.shape)


class Mean(AffineOperation):
    """A linear function with coefficients that are not negative: a mean or a sum over windows.

    Args:
        function: maps (N, *taken) to (N, *shape).
        taken: shape of an input.
        shape: shape of a result.
        terms: the largest number of values that one of the result is made of.
    """

    def __init__(
        self, function: Callable[[Tensor], Tensor], *, taken: Shape, shape: Shape, terms: int
    ) -> None:
        self.function = function
        self.taken = taken
        self.shape = shape
        self.roundings = terms + 2

    @property
    def work(self) -> int:
        """Number of values that are summed for one example, at least."""
        return max(math.prod(self.taken), math.prod(self.shape))

    def values(self, *inputs: Tensor) -> Tensor:
        """Returns the means."""
        return self.function(inputs[0])

    def spread(self, *sizes: Tensor) -> Tensor:
        """Returns the means of sizes."""
        return self.function(sizes[0])

    def pull(self, direction: Tensor) -> tuple[Tensor, ...]:
        """Returns the transposed function of the direction, by autograd."""
        with torch.enable_grad():
            leaf = direction.new_zeros(len(direction), *self.taken, requires_grad=True)
            result = self.function(leaf)
        return torch.autograd.grad(result, leaf, direction)
