r"""Interval bound propagation.

A range of the input goes through one operation after the other; of an affine one, the middle c and
the half-width r become :math:`W c + b` and :math:`|W| r`.

Source: S. Gowal, K. Dvijotham, R. Stanforth, R. Bunel, C. Qin, J. Uesato, R. Arandjelovic, T. Mann
and P. Kohli, "On the effectiveness of interval bound propagation for training verifiably robust
models", 2018, section 3; https://arxiv.org/abs/1810.12715
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from gibbon.bounds.balls import Ball
from gibbon.bounds.network import AffineOperation, Network, Node, NonlinearOperation, Range
from gibbon.bounds.rounding import FLOAT64_SLACK, TINY, rounding_factor


@dataclass
class Enclosure:
    """Ranges that hold every value that the network computes in float32 on a set of inputs.

    Args:
        network: the network.
        ball: the set of inputs.
        tensor_float: whether the model's products may be rounded to TensorFloat-32.
        ranges: the range of each node so far, float64, shape (N, *shape).
        rounding: for each node so far the largest error of its float32 arithmetic, of the same
            shape; None if it makes none.
        pre: the ranges of the pre-activations of nonlinear nodes, by position.
        functions: number of linear functions that were bounded.
    """

    network: Network
    ball: Ball
    tensor_float: bool
    ranges: list[Range] = field(default_factory=list)
    rounding: list[Tensor | None] = field(default_factory=list)
    pre: dict[int, Range] = field(default_factory=dict)
    functions: int = 0

    def step(self) -> None:
        """Adds the next node, from the ranges of its inputs."""
        node = self.network.nodes[len(self.ranges)]
        operation = node.operation
        if operation is None:
            self.ranges.append((self.ball.low, self.ball.high))
            self.rounding.append(None)
        elif isinstance(operation, AffineOperation):
            self._add_affine(operation, node)
        elif isinstance(operation, NonlinearOperation):
            self._add_nonlinear(operation, node)

    def _add_affine(self, operation: AffineOperation, node: Node) -> None:
        taken = [self.ranges[each] for each in node.inputs]
        if not operation.roundings:  # numbers are moved: their ranges move with them
            low, high = (operation.values(*ends) for ends in zip(*taken, strict=True))
            self.ranges.append((low, high))
            self.rounding.append(None)
            return
        middle = operation.values(*((low + high) / 2 for low, high in taken))
        half = operation.spread(*((high - low) / 2 for low, high in taken))
        size = operation.spread(*(torch.maximum(low.abs(), high.abs()) for low, high in taken))
        constant = operation.constant_size()
        size = size if constant is None else size + constant
        factor = rounding_factor(
            operation.roundings, products=operation.products, tensor_float=self.tensor_float
        )
        error = factor * size + operation.roundings * TINY
        half = half + error
        self.ranges.append((middle - half, middle + half))
        self.rounding.append(error)

    def _add_nonlinear(self, operation: NonlinearOperation, node: Node) -> None:
        position = len(self.ranges)
        taken = [self.ranges[each] for each in node.inputs]
        self.pre.setdefault(position, difference(operation, taken))
        low, high = operation.interval(*taken)
        error = None
        if operation.slack:
            error = operation.slack * (1 + torch.maximum(low.abs(), high.abs()))
            low, high = low - error, high + error
        self.ranges.append((low, high))
        self.rounding.append(error)

    def error(self, position: int) -> Tensor:
        """Returns the largest rounding error at a node, of its float32 and our float64 arithmetic.

        The float64 errors of a node with float32 arithmetic are covered by its `rounding`.
        """
        error = self.rounding[position]
        low, high = self.ranges[position]
        return FLOAT64_SLACK * torch.maximum(low.abs(), high.abs()) if error is None else error

    def narrow(self, position: int, low: Tensor, high: Tensor) -> None:
        """Replaces the range of a node by its intersection with another one that holds too."""
        before = self.ranges[position]
        low = torch.maximum(before[0], low)
        high = torch.minimum(before[1], high)
        # Rounding may make an empty range of one point.
        self.ranges[position] = torch.minimum(low, high), torch.maximum(low, high)


def enclose(network: Network, ball: Ball, *, tensor_float: bool) -> Enclosure:
    """Returns the ranges of all nodes by interval bound propagation."""
    enclosure = Enclosure(network, ball, tensor_float)
    for _ in network.nodes:
        enclosure.step()
    return enclosure


def difference(operation: NonlinearOperation, taken: list[Range]) -> Range:
    """Returns the range of the pre-activations from the ranges of an operation's inputs."""
    if len(operation.pre) == 1:
        return taken[0]
    (low, high), (other_low, other_high) = taken
    widest = FLOAT64_SLACK * (low.abs() + other_high.abs() + high.abs() + other_low.abs())
    return low - other_high - widest, high - other_low + widest
