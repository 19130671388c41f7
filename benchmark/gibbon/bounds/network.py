"""A network as a list of operations, each of which works example by example."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

Shape = tuple[int, ...]
Range = tuple[Tensor, Tensor]  # lowest and highest value, each of shape (N, ...)

# Relative difference of two scores below which a softmax in float32 may make them equal: its
# arguments are rounded to 2^-24 of their size, and a few more roundings follow.
FINAL_SLACK = 2.0**-18


class NoBoundError(Exception):
    """A model can't be bounded; the message says why, as the predicate of a sentence."""


class Operation(ABC):
    """An operation of a network.

    Tensors are float64, with the examples first.  ``shape`` is that of the result for one example.
    """

    shape: Shape

    @abstractmethod
    def values(self, *inputs: Tensor) -> Tensor:
        """Returns the result, shape (N, *shape)."""

    @property
    def work(self) -> int:
        """Number of multiplications, or of other elementary operations, for one example."""
        return math.prod(self.shape)


class AffineOperation(Operation):
    """An operation whose result is an affine function of its inputs.

    Attributes:
        roundings: number of float32 roundings that a term of the result goes through; 0 for an
            operation that only moves numbers.
        products: whether the terms are products that a matrix unit may compute.
        mixes: whether a number of the result depends on several numbers of its inputs.
    """

    roundings: int = 0
    products: bool = False
    mixes: bool = True

    @abstractmethod
    def spread(self, *sizes: Tensor) -> Tensor:
        """Returns the result with absolute values as coefficients and without constants."""

    @abstractmethod
    def pull(self, direction: Tensor) -> tuple[Tensor, ...]:
        """Returns a linear function of the result as one of each input, without the constant.

        ``direction`` holds the coefficients, shape (P, *shape).
        """

    def constant(self) -> Tensor | None:
        """Returns the constant part of the result, broadcastable to (1, *shape), or None."""
        return None

    def constant_size(self) -> Tensor | None:
        """Returns the sizes of the constants that are rounded with the result, or None."""
        constant = self.constant()
        return None if constant is None else constant.abs()


@dataclass(frozen=True)
class Lines:
    r"""Linear bounds of a nonlinear operation.

    For all inputs in their ranges,
    :math:`\sum_i s_i x_i + t \le f(x) \le \sum_i s'_i x_i + t'`, with shape (N, *shape) each.
    """

    low_slopes: tuple[Tensor, ...]
    low_shift: Tensor
    high_slopes: tuple[Tensor, ...]
    high_shift: Tensor


class NonlinearOperation(Operation):
    """An operation that is bounded by intervals, and by lines if it has some.

    Its lines depend on the range of one pre-activation for each number of the result: a linear
    function of its inputs with the coefficients ``pre``, which are (1,) for a function of one
    input, and (1, -1) for one of the difference of two.

    Attributes:
        slack: relative error of the function in float32.
        has_lines: whether `lines` is implemented.
    """

    pre: tuple[float, ...] = (1.0,)
    slack: float = 0.0
    has_lines: bool = False

    @abstractmethod
    def interval(self, *ranges: Range) -> Range:
        """Returns the range of the result, without rounding, from those of the inputs."""

    def is_settled(self, pre: Range) -> Tensor:
        """Returns which pre-activations have a range that leaves no gap between the lines."""
        return torch.zeros_like(pre[0], dtype=torch.bool)

    def lines(self, pre: Range, *, parallel: bool) -> Lines:
        """Returns linear bounds from the range of the pre-activations.

        ``parallel`` chooses lower lines with the slope of the upper ones, else those that leave
        the smaller area.
        """
        raise NotImplementedError(f"{type(self).__name__} has no lines")


@dataclass(frozen=True)
class Node:
    """An operation and the positions of its inputs among the nodes; None for the input itself."""

    operation: Operation | None
    inputs: tuple[int, ...]
    shape: Shape


@dataclass(frozen=True)
class Network:
    """A network as nodes in order: the input first, the scores of the classes last.

    Args:
        nodes: the nodes, each after its inputs.
        final: function of the scores that the module returns; it keeps the order of classes, but
            in float32 it may make two of them equal.
    """

    nodes: tuple[Node, ...]
    final: Literal["", "softmax", "log_softmax"] = ""

    @property
    def classes(self) -> int:
        """Number of classes, K."""
        return self.nodes[-1].shape[0]

    @property
    def is_affine(self) -> bool:
        """Whether the outputs are an affine function of the inputs."""
        return self.affine[-1]

    @cached_property
    def affine(self) -> Sequence[bool]:
        """Whether each node is an affine function of the input."""
        found: list[bool] = []
        for node in self.nodes:
            own = isinstance(node.operation, AffineOperation | None)
            found.append(own and all(found[each] for each in node.inputs))
        return found

    @cached_property
    def mixings(self) -> Sequence[int]:
        """The largest number of mixing operations on a path from the input to each node."""
        found: list[int] = []
        for node in self.nodes:
            operation = node.operation
            own = isinstance(operation, AffineOperation) and operation.mixes
            found.append(int(own) + max((found[each] for each in node.inputs), default=0))
        return found

    @property
    def work(self) -> int:
        """Number of multiplications of a forward pass for one example."""
        return sum(each.operation.work for each in self.nodes if each.operation is not None)

    @property
    def largest(self) -> int:
        """The largest number of values of a node for one example."""
        return max(math.prod(each.shape) for each in self.nodes)

    @property
    def output_slack(self) -> float:
        """The margin of scores, as a share of their sizes, that the last function keeps."""
        return FINAL_SLACK if self.final else 0.0

    def values(self, inputs: Tensor) -> Tensor:
        """Returns the scores, float64, shape (N, K), without rounding to float32."""
        found: list[Tensor] = []
        for node in self.nodes:
            operation = node.operation
            if operation is None:
                found.append(inputs.double())
            else:
                found.append(operation.values(*(found[each] for each in node.inputs)))
        return found[-1]
