r"""CROWN: linear bounds, propagated from a linear function of a node back to the input.

A linear function :math:`a^\top z` of a node's result is a linear function of its inputs if the node
is affine.  At a nonlinear node, if :math:`a_i \ge 0`, it is not below :math:`a_i` times the lower
line, and otherwise not below :math:`a_i` times the upper one.  At the input it is a linear function
on the ball, whose smallest value is known (`gibbon.bounds.balls`).

The ranges of pre-activations, which the lines depend on, are bounded in the same way, node by node;
those whose sign is known already are left out.  Parallel lines bound a function on both sides in
one pass; what they leave open is bounded again by the lines of the smaller area.

Source: H. Zhang, T.-W. Weng, P.-Y. Chen, C.-J. Hsieh and L. Daniel, "Efficient neural network
robustness certification with general activation functions", NeurIPS 2018, sections 3.2 and 3.3;
https://arxiv.org/abs/1811.00866.  Residual sums: K. Xu et al., "Automatic perturbation analysis for
scalable certified robustness and beyond", NeurIPS 2020; https://arxiv.org/abs/2002.12920
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from gibbon.bounds.balls import Ball
from gibbon.bounds.interval_bounds import Enclosure, difference
from gibbon.bounds.network import AffineOperation, Network, Node, NonlinearOperation, Range
from gibbon.bounds.rounding import FLOAT64_SLACK
from gibbon.core.threat import Norm

CHUNK_BYTES = 2**22  # of the coefficients of one node, of all functions that are bounded together

# A product of all functions with all examples is this much faster than one function at a time.
SHARED_SHARE = 20

# How a function passes a nonlinear node: by the node's range; by lines with one slope above and
# below; or by the lower line that leaves the smaller area, which bounds it from below only.
Passage = Literal["ranges", "parallel", "smaller-area"]
PASSAGES: tuple[Passage, ...] = ("parallel", "smaller-area")  # of lines, the cheaper one first


@dataclass(frozen=True)
class Functions:
    """Linear functions of nodes, several of which may be equal.

    Args:
        directions: coefficients by the position of a node, shape (U, *shape); a function is their
            sum.
        which: int64, shape (P,): the position of each function among the U different ones.
        owner: int64, shape (P,): the example that each function is bounded for.
    """

    directions: dict[int, Tensor]
    which: Tensor
    owner: Tensor


def bound_functions(
    enclosure: Enclosure, functions: Functions, *, passage: Passage, exact: bool = False
) -> Range:
    """Returns lower and upper bounds of functions over the balls of their examples, shape (P,).

    Args:
        enclosure: ranges of all nodes that the functions depend on.
        functions: the functions.
        passage: how they pass nonlinear nodes; the upper bounds are infinite for lines of the
            smaller area.
        exact: whether to bound them from below exactly at the input (see `Ball.lowest`), and not
            at all from above.
    """
    enclosure.functions += len(functions.owner)
    return _BackwardPass(enclosure, functions, passage, exact).run()


@dataclass
class _BackwardPass:
    """Linear functions on their way to the input.

    ``left`` holds their coefficients by node: of the different functions, shape (U, *shape), while
    they don't depend on the example, and then of all functions, shape (P, *shape).
    """

    enclosure: Enclosure
    functions: Functions
    passage: Passage
    exact: bool

    def __post_init__(self) -> None:
        self.left = dict(self.functions.directions)
        self.owner = self.functions.owner
        self.shared = True
        self.low = torch.zeros(len(self.owner), dtype=torch.float64, device=self.owner.device)
        self.one_sided = self.exact or self.passage == "smaller-area"
        self.high = torch.full_like(self.low, torch.inf) if self.one_sided else self.low.clone()

    def run(self) -> Range:
        """Returns the bounds."""
        network = self.enclosure.network
        for position in range(max(self.left), -1, -1):
            if position not in self.left:
                continue
            node = network.nodes[position]
            operation = node.operation
            if isinstance(operation, AffineOperation):
                self._pull(node, self._affine(position, operation))
                continue
            if operation is None and self._ends_shared(self.left[position]):
                continue
            if self.shared:
                self.shared = False
                which = self.functions.which
                self.left = {each: part[which] for each, part in self.left.items()}
            if operation is None:
                self._end(self.left.pop(position))
            elif isinstance(operation, NonlinearOperation):
                if self.passage == "ranges" or not operation.has_lines:
                    self._stop(position)
                else:
                    self._pull(node, self._nonlinear(position, operation))
        return self.low, self.high

    def _pull(self, node: Node, parts: tuple[Tensor, ...]) -> None:
        for parent, part in zip(node.inputs, parts, strict=True):
            self.left[parent] = self.left[parent] + part if parent in self.left else part

    def _ends_shared(self, direction: Tensor) -> bool:
        """Ends functions that are the same for all examples at once, if that is less work."""
        ball, pairs = self.enclosure.ball, len(self.owner)
        many = len(direction) * len(ball.centre) > SHARED_SHARE * pairs
        if not self.shared or ball.norm is not Norm.LINF or many:
            return False
        low, high = ball.shared_range(direction)
        which = self.functions.which
        self.low += low[self.owner, which]
        if not self.one_sided:
            self.high += high[self.owner, which]
        return True

    def _end(self, direction: Tensor) -> None:
        ball = self.enclosure.ball
        if self.one_sided:
            self.low += ball.lowest(direction, self.owner, exact=self.exact)
        else:
            low, high = ball.range(direction, self.owner)
            self.low += low
            self.high += high

    def _stop(self, position: int) -> None:
        direction = self.left.pop(position)
        low, high = (each[self.owner] for each in self.enclosure.ranges[position])
        positive = direction >= 0
        self.low += _sum(torch.where(positive, low, high), direction)[0]
        self.high += _sum(torch.where(positive, high, low), direction)[1]

    def _affine(self, position: int, operation: AffineOperation) -> tuple[Tensor, ...]:
        direction = self.left.pop(position)
        error, size = self.enclosure.error(position), direction.abs()
        which = self.functions.which
        if self.shared:
            wrong = (_rows(size) @ _rows(error).T)[which, self.owner]
        else:
            wrong = _rows(size * error[self.owner]).sum(1)
        constant = operation.constant()
        if constant is not None:
            low, high = _sum(direction, constant)
            self.low += low[which] if self.shared else low
            self.high += high[which] if self.shared else high
        self.low -= wrong
        self.high += wrong
        return operation.pull(direction)

    def _nonlinear(self, position: int, operation: NonlinearOperation) -> tuple[Tensor, ...]:
        direction, owner = self.left.pop(position), self.owner
        parallel = self.passage == "parallel"
        lines = operation.lines(self.enclosure.pre[position], parallel=parallel)
        positive = direction >= 0
        below, above = lines.low_shift[owner], lines.high_shift[owner]
        self.low += _sum(direction, torch.where(positive, below, above))[0]
        self.high += _sum(direction, torch.where(positive, above, below))[1]
        error = self.enclosure.rounding[position]
        if error is not None:
            wrong = _rows(direction.abs() * error[owner]).sum(1)
            self.low -= wrong
            self.high += wrong
        if parallel:
            return tuple(direction * slope[owner] for slope in lines.low_slopes)
        return tuple(
            direction * torch.where(positive, low[owner], high[owner])
            for low, high in zip(lines.low_slopes, lines.high_slopes, strict=True)
        )


def crown(network: Network, ball: Ball, *, tensor_float: bool) -> Enclosure:
    """Returns ranges of all nodes, with those of pre-activations bounded by lines."""
    enclosure = Enclosure(network, ball, tensor_float)
    for position, node in enumerate(network.nodes):
        operation = node.operation
        if isinstance(operation, NonlinearOperation):
            _tighten(enclosure, position, operation)
        enclosure.step()
    return enclosure


def first_layers(network: Network, ball: Ball, *, tensor_float: bool) -> Enclosure:
    """Returns the ranges of interval bound propagation, from the norms of the first layers.

    Intervals of coordinates are far wider than a ball in L1 or L2.  A pre-activation that is affine
    in the input is bounded by the dual norm instead, and the rest by intervals.
    """
    enclosure = Enclosure(network, ball, tensor_float)
    for position, node in enumerate(network.nodes):
        operation = node.operation
        if isinstance(operation, NonlinearOperation) and all(
            network.affine[each] for each in node.inputs
        ):
            _tighten(enclosure, position, operation, settled=True)
        enclosure.step()
    return enclosure


def _tighten(
    enclosure: Enclosure, position: int, operation: NonlinearOperation, *, settled: bool = False
) -> None:
    """Bounds the pre-activations of the next node by lines, and narrows its inputs' ranges.

    Those whose sign is known need no narrower range for their lines, but if ``settled``, they get
    one: intervals use the whole range.
    """
    network = enclosure.network
    parents = network.nodes[position].inputs
    taken = [enclosure.ranges[each] for each in parents]
    low, high = (each.clone() for each in difference(operation, taken))
    enclosure.pre[position] = low, high
    if not intervals_are_exact(network, enclosure.ball.norm, parents):
        affine = all(network.affine[each] for each in parents)
        for passage in PASSAGES[:1] if affine else PASSAGES:
            sure = operation.is_settled((low, high))
            open_places = torch.ones_like(sure) if settled else ~sure
            _narrow(enclosure, parents, operation.pre, (low, high), passage, open_places)
        low, high = torch.minimum(low, high), torch.maximum(low, high)
        enclosure.pre[position] = low, high
        if len(parents) == 1:
            enclosure.narrow(parents[0], low, high)


def _narrow(
    enclosure: Enclosure,
    parents: tuple[int, ...],
    factors: tuple[float, ...],
    pre: Range,
    passage: Passage,
    open_places: Tensor,
) -> None:
    """Narrows, in place, the ranges of some pre-activations, bool, shape (N, *shape)."""
    low, high = (each.view(len(each), -1) for each in pre)
    places = _rows(open_places).T.nonzero()  # one pre-activation of all examples together
    if not len(places):
        return
    step = chunk_of(enclosure.network)
    for pairs in places.split(step):  # type: ignore[no-untyped-call]
        units, which = torch.unique(pairs[:, 0], return_inverse=True)
        owner = pairs[:, 1]
        unit = torch.zeros(len(units), low.shape[1], dtype=low.dtype, device=low.device)
        unit = unit.scatter_(1, units.unsqueeze(1), 1.0).view(-1, *pre[0].shape[1:])
        where = owner, pairs[:, 0]
        functions = Functions(_directions(parents, factors, unit), which, owner)
        least, most = bound_functions(enclosure, functions, passage=passage)
        if passage == "smaller-area":
            functions = Functions(_directions(parents, factors, -unit), which, owner)
            most = -bound_functions(enclosure, functions, passage=passage)[0]
        low[where] = torch.maximum(low[where], least)
        high[where] = torch.minimum(high[where], most)


def _directions(
    parents: tuple[int, ...], factors: tuple[float, ...], unit: Tensor
) -> dict[int, Tensor]:
    found: dict[int, Tensor] = {}
    for parent, factor in zip(parents, factors, strict=True):
        part = unit * factor
        found[parent] = found[parent] + part if parent in found else part
    return found


def intervals_are_exact(network: Network, norm: Norm, parents: tuple[int, ...]) -> bool:
    """Returns whether no line narrows the range of a pre-activation of these nodes.

    It is so if every number depends on one coordinate, and in a box also if one operation mixes
    the coordinates.
    """
    mixings = 1 if norm is Norm.LINF else 0
    return (
        len(parents) == 1 and network.affine[parents[0]] and network.mixings[parents[0]] <= mixings
    )


def chunk_of(network: Network) -> int:
    """Returns the number of functions that are bounded together."""
    return max(1, CHUNK_BYTES // (8 * network.largest))


def _sum(one: Tensor, two: Tensor) -> Range:
    """Returns a sum of products for each row, rounded down and rounded up."""
    products = _rows(one * two)
    total, slack = products.sum(1), FLOAT64_SLACK * products.abs().sum(1)
    return total - slack, total + slack


def _rows(values: Tensor) -> Tensor:
    """Returns one row for each example or function, also of single numbers."""
    return values.reshape(len(values), -1)
