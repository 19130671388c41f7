r"""The set of points that a threat model allows around inputs, and linear functions on it.

The smallest value of :math:`a^\top x'` over all :math:`x'` with :math:`\|x' - x\|_p \le \epsilon`
in a box is exact for each norm: coordinate by coordinate in L∞, by a knapsack that moves the
coordinates with the largest :math:`|a_i|` first in L1, and by the dual problem in one variable in
L2.  Without the box it is :math:`a^\top x - \epsilon \|a\|_q`, with the dual norm q.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gibbon.bounds.rounding import FLOAT32, FLOAT64_SLACK
from gibbon.core.threat import Bounds, Norm, ThreatModel
from gibbon.metrics.validity import LINF_TOLERANCE, tolerance

# A candidate's distance is measured in float32, by a sum in blocks.
MEASURED = 64 * FLOAT32
BISECTIONS = 48  # of the dual variable: each gives a valid bound, the last the best


@dataclass(frozen=True)
class Ball:
    """All points that verification accepts as candidates, its tolerance included.

    Args:
        centre: inputs, float64, shape (N, *input_shape).
        norm: norm of the perturbation.
        radius: largest distance in that norm.
        low, high: smallest and largest value of each coordinate, of the same shape.
    """

    centre: Tensor
    norm: Norm
    radius: float
    low: Tensor
    high: Tensor

    def lowest(self, direction: Tensor, owner: Tensor, *, exact: bool = True) -> Tensor:
        """Returns a lower bound of linear functions on the set, shape (P,).

        Args:
            direction: coefficients, float64, shape (P, *input_shape).
            owner: int64, shape (P,): the example that each function belongs to.
            exact: whether the bound is the smallest value, up to rounding; else the better one of
                those without the box and without the norm.
        """
        slope, centre = direction.flatten(1), self.centre.flatten(1)[owner]
        room = torch.where(
            slope > 0,
            centre - self.low.flatten(1)[owner],
            self.high.flatten(1)[owner] - centre,
        ).clamp_(min=0.0)
        rate = slope.abs()
        fall = (rate * room).sum(1)  # exact in L∞, and in any norm if the ball holds the box
        if self.norm is not Norm.LINF:
            fall = torch.minimum(fall, self._fall(rate, room, exact=exact))
        size = (rate * centre.abs()).sum(1) + fall
        return (slope * centre).sum(1) - fall - FLOAT64_SLACK * size

    def range(self, direction: Tensor, owner: Tensor) -> tuple[Tensor, Tensor]:
        """Returns bounds of linear functions on the set on both sides, not exact but in L∞."""
        if self.norm is not Norm.LINF:
            low = self.lowest(direction, owner, exact=False)
            return low, -self.lowest(-direction, owner, exact=False)
        slope = direction.flatten(1)
        middle = ((self.low + self.high) / 2).flatten(1)[owner]
        half = ((self.high - self.low) / 2).flatten(1)[owner]
        rate = slope.abs()
        value, move = (slope * middle).sum(1), (rate * half).sum(1)
        move = move + FLOAT64_SLACK * ((rate * middle.abs()).sum(1) + move)
        return value - move, value + move

    def shared_range(self, direction: Tensor) -> tuple[Tensor, Tensor]:
        """Returns bounds of functions on the sets of all examples, shape (N, U) each, in L∞.

        ``direction`` holds the coefficients of U functions, shape (U, *input_shape).
        """
        slope = direction.flatten(1).T
        middle = ((self.low + self.high) / 2).flatten(1)
        half = ((self.high - self.low) / 2).flatten(1)
        rate = slope.abs()
        value, move = middle @ slope, half @ rate
        move = move + FLOAT64_SLACK * (middle.abs() @ rate + move)
        return value - move, value + move

    def _fall(self, rate: Tensor, room: Tensor, *, exact: bool) -> Tensor:
        if self.norm is Norm.L1:
            return _knapsack(rate, room, self.radius) if exact else rate.amax(1) * self.radius
        whole = torch.linalg.vector_norm(rate, dim=1) * self.radius
        return torch.minimum(whole, _dual(rate, room, self.radius)) if exact else whole


def ball_around(inputs: Tensor, threat: ThreatModel, *, bounds: Bounds) -> Ball:
    """Returns the set of points that verification accepts around inputs.

    Args:
        inputs: shape (N, *input_shape), inside the bounds.
        threat: norm, budget and box.
        bounds: the model's bounds, whose width scales the tolerance of verification.
    """
    centre = inputs.double()
    slack = tolerance(threat, bounds=bounds, coordinates=inputs[0].numel())
    radius = (threat.radius + slack) * (1 + MEASURED)
    low, high = centre - radius, centre + radius
    if threat.bounds is not None:
        edge = LINF_TOLERANCE * bounds.width
        low = low.clamp(min=threat.bounds.low - edge)
        high = high.clamp(max=threat.bounds.high + edge)
    return Ball(centre, threat.norm, radius, low, high)


def _knapsack(rate: Tensor, room: Tensor, radius: float) -> Tensor:
    """Returns the largest sum of rate times distance, if the distances sum to the radius."""
    ordered, order = rate.sort(dim=1, descending=True)
    space = room.gather(1, order)
    spent_before = space.cumsum(1) - space
    moved = torch.minimum(space, (radius - spent_before).clamp_(min=0.0))
    return (ordered * moved).sum(1)


def _dual(rate: Tensor, room: Tensor, radius: float) -> Tensor:
    r"""Returns the smallest dual value found, an upper bound of the fall within an L2 ball.

    For any :math:`\lambda > 0` it is :math:`\sum_i \max_{0 \le t \le c_i} (|a_i| t - \lambda t^2/2)
    + \lambda \epsilon^2 / 2`; the best :math:`\lambda` makes the norm of t the radius.
    """
    if radius == 0:
        return torch.zeros_like(rate[:, 0])
    high = torch.linalg.vector_norm(rate, dim=1).clamp(min=torch.finfo(rate.dtype).tiny) / radius
    low = torch.zeros_like(high)
    best = torch.full_like(high, torch.inf)
    for _ in range(BISECTIONS):
        weight = (low + high) / 2
        step = torch.minimum(rate / weight.unsqueeze(1), room)
        square = step.square().sum(1)
        value = (rate * step).sum(1) + weight / 2 * (radius**2 - square)
        best = torch.minimum(best, value)
        too_far = square > radius**2
        low, high = torch.where(too_far, weight, low), torch.where(too_far, high, weight)
    return best
