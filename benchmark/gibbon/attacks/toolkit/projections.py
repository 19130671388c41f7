"""Projections onto the ball and the box, random starts and steepest directions, by norm.

Source for L1: F. Croce and M. Hein, "Mind the box: l1-APGD for sparse adversarial attacks on image
classifiers", ICML 2021, section 2 (the projection onto the ball cut with the box),
https://arxiv.org/abs/2103.01208.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from gibbon.core.rng import ExampleStreams
from gibbon.core.threat import Bounds, Norm, ThreatModel
from gibbon.metrics.distances import clip_, like

# The share of coordinates that a sparse step in L1 moves: those of the largest gradient.
SPARSE_SHARE = 0.01
ROUNDING = 1e-3  # of a share times the number of coordinates: 0.3 of 10 are 3, not 4


class Region(ABC):
    """The points that a threat model allows around given inputs."""

    def __init__(self, inputs: Tensor, *, threat: ThreatModel) -> None:
        self.inputs = inputs
        self.threat = threat
        self.radius = threat.radius
        self.bounds = threat.bounds

    def take(self, index: Tensor) -> Region:
        """Returns the region around some of the inputs: ``index`` is a mask or positions."""
        return type(self)(self.inputs[index], threat=self.threat)

    @abstractmethod
    def project(self, points: Tensor) -> Tensor:
        """Projects ``points``, which may be overwritten, onto the allowed points."""

    @abstractmethod
    def random_point(self, streams: ExampleStreams) -> Tensor:
        """Returns points drawn uniformly from the ball, clipped to the box."""

    @abstractmethod
    def unit(self, gradient: Tensor) -> Tensor:
        """Returns the steepest direction, of length 1 in the norm; 0 for a zero gradient."""


class LinfRegion(Region):
    """The intersection of an L∞ ball and the box, which is a box."""

    def __init__(self, inputs: Tensor, *, threat: ThreatModel) -> None:
        super().__init__(inputs, threat=threat)
        self.lower = inputs - threat.radius
        self.upper = inputs + threat.radius
        if threat.bounds is not None:
            self.lower.clamp_(min=threat.bounds.low)
            self.upper.clamp_(max=threat.bounds.high)

    def project(self, points: Tensor) -> Tensor:
        """Returns the nearest allowed points."""
        return torch.clamp(points, self.lower, self.upper, out=points)

    def random_point(self, streams: ExampleStreams) -> Tensor:
        """Returns a uniform point of the ball, clipped to the box."""
        noise = streams.uniform(self.inputs.shape[1:]).mul_(2.0).sub_(1.0)
        return self.project(self.inputs.add(noise, alpha=self.radius))

    def unit(self, gradient: Tensor) -> Tensor:
        """Returns the sign of each coordinate."""
        return gradient.sign()


class L2Region(Region):
    """The intersection of a Euclidean ball and the box."""

    def project(self, points: Tensor) -> Tensor:
        """Returns the nearest points of the ball, clipped to the box.

        Inputs lie in the box, so that clipping only shortens the perturbation.
        """
        change = points.sub_(self.inputs)
        change.mul_(self.radius / lengths(change).clamp(min=max(self.radius, TINY)))
        return clip_(change.add_(self.inputs), self.bounds)

    def random_point(self, streams: ExampleStreams) -> Tensor:
        """Returns a uniform point of the ball: a random direction, and a radius by its volume."""
        shape = self.inputs.shape[1:]
        direction = self.unit(streams.child("direction").normal(shape))
        share = streams.child("radius").uniform((1,) * len(shape)).pow_(1.0 / shape.numel())
        return self.project(self.inputs.add(direction.mul_(share), alpha=self.radius))

    def unit(self, gradient: Tensor) -> Tensor:
        """Returns the gradient divided by its length."""
        return gradient / lengths(gradient).clamp(min=TINY)


class L1Region(Region):
    """The intersection of an L1 ball and the box."""

    def project(self, points: Tensor) -> Tensor:
        r"""Returns the nearest points of the intersection (proposition 2.1).

        With :math:`w = p - x`, and :math:`c_i` the room that the box leaves in the direction of
        :math:`w_i`, they are :math:`x_i + \mathrm{sign}(w_i) \min(\max(|w_i| - \lambda, 0), c_i)`,
        with the smallest :math:`\lambda \ge 0` that makes the change no longer than epsilon.
        """
        change = points.sub_(self.inputs)
        sizes = change.abs()
        room = torch.full_like(sizes, torch.inf)
        if self.bounds is not None:
            above, below = self.bounds.high - self.inputs, self.inputs - self.bounds.low
            room = torch.where(change > 0, above, below).clamp_(min=0.0)
        threshold = _threshold(sizes.flatten(1), room.flatten(1), radius=self.radius)
        kept = sizes.sub_(like(threshold, sizes)).clamp_(min=0.0).minimum(room)
        return clip_(self.inputs + change.sign_().mul_(kept), self.bounds)

    def random_point(self, streams: ExampleStreams) -> Tensor:
        """Returns a uniform point of the ball, then the nearest allowed one.

        Exponential numbers with random signs, over the sum of all of them and one more, are uniform
        in the ball.
        """
        shape = self.inputs.shape[1:]
        draws = streams.child("size").uniform((shape.numel() + 1,))
        sizes = torch.log1p(draws.neg_()).neg_()  # 1 - u is never 0
        shares = sizes[:, :-1] / sizes.sum(1, keepdim=True)
        change = streams.child("sign").signs(shape).mul_(shares.view(-1, *shape))
        return self.project(self.inputs.add(change, alpha=self.radius))

    def unit(self, gradient: Tensor) -> Tensor:
        """Returns the signs of the largest hundredth of the coordinates, by their number.

        The steepest direction would move the largest one only; see `sparse_unit`.
        """
        return sparse_unit(gradient, share=SPARSE_SHARE)


def sparse_unit(gradient: Tensor, *, share: float) -> Tensor:
    """Returns the signs of the largest coordinates of each gradient, divided by their number.

    Args:
        gradient: shape (N, *input_shape); the result is zero for a gradient of zeros.
        share: of the coordinates that move, above 0, at most 1; at least one coordinate moves, and
            so do coordinates that equal the smallest of those that move.

    Source: F. Tramèr and D. Boneh, "Adversarial training and robustness for multiple
    perturbations", NeurIPS 2019, section 4.1 and algorithm 1, https://arxiv.org/abs/1904.13000.

    >>> sparse_unit(torch.tensor([[3.0, -2.0, 1.0, 0.5]]), share=0.5)
    tensor([[ 0.5000, -0.5000,  0.0000,  0.0000]])
    """
    sizes = gradient.flatten(1).abs()
    count = sizes.shape[1]
    moving = min(max(1, math.ceil(share * count - ROUNDING)), count)
    return _signs_from(gradient, sizes, least=sizes.topk(moving).values[:, -1:])


def sparse_units(gradient: Tensor, *, shares: Tensor) -> Tensor:
    """Returns `sparse_unit` with a share for each example, shape (N,)."""
    sizes = gradient.flatten(1).abs()
    count = sizes.shape[1]
    moving = shares.mul(count).sub_(ROUNDING).ceil_().clamp_(1, count).long()
    ordered = sizes.sort(dim=1, descending=True).values
    return _signs_from(gradient, sizes, least=ordered.gather(1, (moving - 1).unsqueeze(1)))


def _signs_from(gradient: Tensor, sizes: Tensor, *, least: Tensor) -> Tensor:
    large = (sizes >= least) & (sizes > 0)
    signs = gradient.flatten(1).sign() * large
    return (signs / large.sum(1, keepdim=True).clamp(min=1)).view_as(gradient)


def _threshold(sizes: Tensor, room: Tensor, *, radius: float) -> Tensor:
    r"""Returns the :math:`\lambda` of `L1Region.project`, shape (N,).

    The length of the change, :math:`\sum_i (|w_i| - \lambda)^+ - (|w_i| - c_i - \lambda)^+`, falls
    with :math:`\lambda` in straight pieces that meet at the sorted :math:`|w_i|` and
    :math:`|w_i| - c_i`.  Sums are taken in float64: they may have hundreds of thousands of terms.
    """
    corners = torch.cat([sizes, (sizes - room).clamp_(min=0.0)], dim=1)
    corners, order = corners.sort(dim=1, descending=True)
    corners = corners.to(_wide(sizes.device))
    slopes = torch.where(order < sizes.shape[1], 1.0, -1.0).to(corners.dtype)
    sums, slopes = (slopes * corners).cumsum(1), slopes.cumsum(1)
    lengths_there = sums - slopes * corners
    # The piece that meets the radius begins at the last corner with a length below the radius.
    short = (lengths_there < radius).sum(1, keepdim=True)
    last = (short - 1).clamp_(min=0)
    excess, slope = sums.gather(1, last) - radius, slopes.gather(1, last)
    threshold = torch.where(slope > 0, excess / slope.clamp(min=1.0), corners.gather(1, last))
    inside = short == corners.shape[1]  # no corner exceeds the radius: nothing is cut
    return threshold.clamp_(min=0.0).masked_fill_(inside, 0.0).squeeze(1).to(sizes.dtype)


def _wide(device: torch.device) -> torch.dtype:
    return torch.float32 if device.type == "mps" else torch.float64  # Metal has no float64


def inward(gradient: Tensor, points: Tensor, *, bounds: Bounds | None) -> Tensor:
    """Returns the gradient with zeros for coordinates at the box whose step would leave it."""
    if bounds is None:
        return gradient
    held = (points >= bounds.high) & (gradient > 0) | (points <= bounds.low) & (gradient < 0)
    return torch.where(held, 0.0, gradient)


def choose(mask: Tensor, points: Tensor, others: Tensor) -> Tensor:
    """Returns ``points`` for the examples in ``mask``, bool, shape (N,), and ``others`` else."""
    return torch.where(like(mask, points), points, others)


TINY = torch.finfo(torch.float32).tiny
REGIONS: dict[Norm, type[Region]] = {Norm.LINF: LinfRegion, Norm.L2: L2Region, Norm.L1: L1Region}


def region(inputs: Tensor, *, threat: ThreatModel) -> Region:
    """Returns the region that ``threat`` allows around ``inputs``, shape (N, *input_shape)."""
    return REGIONS[threat.norm](inputs, threat=threat)


def lengths(perturbations: Tensor) -> Tensor:
    """Returns each perturbation's Euclidean length, shaped to broadcast against it."""
    flat: Tensor = torch.linalg.vector_norm(perturbations.flatten(1), dim=1)
    return like(flat, perturbations)
