r"""Linearised decision boundaries, and the shortest moves to them inside a box.

At a point x the boundary between the true class y and a rival k is the hyperplane

.. math:: g + \langle w, z - x \rangle = 0, \qquad
    g = f_k(x) - f_y(x), \quad w = \nabla f_k(x) - \nabla f_y(x).

`to_hyperplane` solves :math:`\min_\delta \|\delta\|_p` such that :math:`x + \delta` lies on it and
in the box: the projection of F. Croce and M. Hein, "Minimally distorted adversarial examples with a
fast adaptive boundary attack", ICML 2020, section 2, https://arxiv.org/abs/1907.02044.  If the box
does not reach the hyperplane, the result is the point of the box nearest to it, as in the paper.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gibbon.attacks.toolkit.example_rows import ExampleRows
from gibbon.attacks.toolkit.minimal_search import finite
from gibbon.attacks.toolkit.projections import TINY
from gibbon.core.threat import Bounds, Norm
from gibbon.metrics.distances import like
from gibbon.models.classifier import Classifier

ROUNDING = 8  # of a level found by iteration, in units of the last place


@dataclass(frozen=True)
class Boundary(ExampleRows):
    """A linearised boundary for each example.

    Args:
        gap: shape (N,): the rival's output minus the true class's, at the point.
        normal: shape (N, *input_shape): the gradient of the gap; zero if it is not finite.
    """

    gap: Tensor
    normal: Tensor

    def seen_from(self, other: Tensor, points: Tensor) -> Boundary:
        """Returns the hyperplanes through ``points`` with their gap at ``other`` points."""
        along = (self.normal * (other - points)).flatten(1).sum(1)
        return Boundary(self.gap + along, self.normal)


def rivals_of(outputs: Tensor, labels: Tensor, *, count: int | None = None) -> Tensor:
    """Returns the likeliest classes other than the true one, best first: int64, shape (N, count).

    All K - 1 of them if ``count`` is None or larger.

    >>> rivals_of(torch.tensor([[1.0, 4.0, 2.0, 3.0]]), torch.tensor([1]), count=2)
    tensor([[3, 2]])
    """
    others = outputs.scatter(1, labels.unsqueeze(1), -torch.inf)
    most = outputs.shape[1] - 1
    order = others.argsort(dim=1, descending=True, stable=True)
    # NaN sorts above infinity: the true class is taken out by its name, not by its place.
    kept = order[order != labels.unsqueeze(1)].view(len(outputs), most)
    return kept[:, : most if count is None else min(count, most)]


def nearest_boundary(
    classifier: Classifier, points: Tensor, *, labels: Tensor, rivals: Tensor, norm: Norm
) -> Boundary:
    r"""Returns for each example the boundary that is nearest in the norm, without regard to a box.

    The distance is :math:`|g| / \|w\|_q` with q the dual norm; a rival without a usable gradient is
    infinitely far.  One forward pass, and a backward pass for each column of ``rivals`` (N, R).
    """
    leaf = points.detach().requires_grad_()
    with torch.enable_grad():
        outputs = classifier(leaf)
    answers = outputs.detach().to(points.dtype)
    own = labels.unsqueeze(1)
    gaps = answers.gather(1, rivals) - answers.gather(1, own)
    best = Boundary(torch.zeros_like(gaps[:, 0]), torch.zeros_like(points))
    nearest = torch.full_like(gaps[:, 0], torch.inf)
    for number, (rival, gap) in enumerate(zip(rivals.unbind(1), gaps.unbind(1), strict=True)):
        upstream = torch.zeros_like(answers).scatter_(1, own, -1.0)
        upstream.scatter_(1, rival.unsqueeze(1), 1.0)
        again = number + 1 < rivals.shape[1]
        normal = finite(classifier.pull_back(outputs, leaf, upstream, again=again))
        if rivals.shape[1] == 1:
            return Boundary(gaps[:, 0], normal)
        size = dual_size(normal, norm=norm)
        distance = torch.where(size > 0, gap.abs() / size, torch.inf)
        nearer = distance < nearest
        nearest = torch.where(nearer, distance, nearest)
        best = Boundary(
            torch.where(nearer, gap, best.gap),
            torch.where(like(nearer, normal), normal, best.normal),
        )
    return best


def dual_size(normals: Tensor, *, norm: Norm) -> Tensor:
    """Returns the size of each example's normal in the norm's dual, shape (N,)."""
    flat = normals.flatten(1)
    if norm is Norm.LINF:
        return flat.abs().sum(1)
    if norm is Norm.L1:
        return flat.abs().amax(1)
    sizes: Tensor = torch.linalg.vector_norm(flat, dim=1)
    return sizes


def to_hyperplane(
    points: Tensor, boundary: Boundary, *, norm: Norm, bounds: Bounds | None
) -> Tensor:
    """Returns the shortest move from points in the box to their hyperplanes that stays in the box.

    Shape (N, *input_shape); zero if the normal is zero.  Of several shortest moves in L∞ the result
    is the one with equal sizes in all coordinates, as in the paper; in L1 one that moves as few
    coordinates as possible.
    """
    flat, gap = boundary.normal.flatten(1), boundary.gap
    towards = flat.sign().mul_(torch.where(gap > 0, -1.0, 1.0).unsqueeze(1))
    weights, demand = flat.abs(), gap.abs()
    if bounds is None:
        sizes = _UNBOUNDED[norm](weights, demand)
    else:
        # The distance to the edge of the box: half its width, less the way from its middle.
        behind = (bounds.low + bounds.high) / 2 - points.flatten(1)
        room = behind.mul_(towards).add_(bounds.width / 2).clamp_(min=0)
        sizes = _BOUNDED[norm](weights, demand, room)
    return towards.mul_(sizes).view_as(points)


def _linf(weights: Tensor, demand: Tensor, room: Tensor) -> Tensor:
    level = _level(weights, room, demand)
    return torch.minimum(level.unsqueeze(1), room)


def _l2(weights: Tensor, demand: Tensor, room: Tensor) -> Tensor:
    weights, demand = _scaled(weights, demand)
    level = _level(weights.square(), _ratio(room, weights), demand)
    farthest = level.clamp(max=torch.finfo(level.dtype).max)  # which times 0 is 0
    return torch.minimum(farthest.unsqueeze(1) * weights, room)


def _l1(weights: Tensor, demand: Tensor, room: Tensor) -> Tensor:
    """Moves one coordinate after another to its limit, those with the largest weights first."""
    order = weights.argsort(dim=1, descending=True, stable=True)
    steepest, places = weights.gather(1, order).double(), room.gather(1, order)
    gains = steepest * places
    before = gains.cumsum(1) - gains
    left = (demand.unsqueeze(1) - before).clamp_(min=0)
    sizes = torch.minimum(_ratio(left, steepest), places).to(weights.dtype)
    return torch.zeros_like(weights).scatter_(1, order, sizes)


def _level(slopes: Tensor, limits: Tensor, demand: Tensor) -> Tensor:
    r"""Returns the smallest t >= 0 with :math:`\sum_i s_i \min(t, l_i) = d`, shape (N,).

    The sum is concave and piecewise linear in t.  So Newton's method from 0 never oversteps, and
    ends at the right piece after a few rounds, each far cheaper than sorting the limits.  Infinite
    if the sum never reaches d: then every coordinate moves to its limit.
    """
    level, filled = torch.zeros_like(demand), torch.empty_like(limits)
    least = 1 + ROUNDING * torch.finfo(level.dtype).eps
    for _ in range(slopes.shape[1] + 1):
        torch.minimum(limits, level.unsqueeze(1), out=filled)
        left = demand - torch.linalg.vecdot(slopes, filled)
        free = torch.gt(limits, level.unsqueeze(1), out=filled)
        rising = torch.linalg.vecdot(slopes, free)
        ahead = level + torch.where(rising > 0, left / rising, torch.where(left > 0, torch.inf, 0))
        higher = ahead > level * least  # NaN is not
        if not bool(higher.any()):
            break
        level = torch.where(higher, ahead, level)
    return level


def _linf_free(weights: Tensor, demand: Tensor) -> Tensor:
    return _ratio(demand, weights.sum(1)).unsqueeze(1).expand_as(weights)


def _l2_free(weights: Tensor, demand: Tensor) -> Tensor:
    weights, demand = _scaled(weights, demand)
    return _ratio(demand, weights.square().sum(1)).unsqueeze(1) * weights


def _l1_free(weights: Tensor, demand: Tensor) -> Tensor:
    most, place = weights.max(1)
    sizes = _ratio(demand, most).unsqueeze(1)
    return torch.zeros_like(weights).scatter_(1, place.unsqueeze(1), sizes)


def _scaled(weights: Tensor, demand: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the same hyperplanes with a largest weight of 1: squares of small ones are 0."""
    most = weights.amax(1).clamp(min=TINY)
    return weights / most.unsqueeze(1), demand / most


def _ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    return torch.where(denominator > 0, numerator / denominator, 0.0)


_BOUNDED = {Norm.LINF: _linf, Norm.L2: _l2, Norm.L1: _l1}
_UNBOUNDED = {Norm.LINF: _linf_free, Norm.L2: _l2_free, Norm.L1: _l1_free}
