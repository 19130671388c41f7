"""Balls around inputs, the box, and steps of unit length: the geometry of gradient attacks."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from benchmark.rng import ExampleStreams
from benchmark.threat import Norm, ThreatModel


class Region(ABC):
    """All points that a threat model allows around given inputs."""

    @abstractmethod
    def project(self, points: Tensor) -> Tensor:
        """Returns allowed points near ``points`` (which may be overwritten)."""

    @abstractmethod
    def random_point(self, streams: ExampleStreams) -> Tensor:
        """Returns points drawn uniformly from the ball, then put into the box."""

    @abstractmethod
    def unit(self, gradient: Tensor) -> Tensor:
        """Returns the direction of steepest ascent: length 1 in the norm, or 0 for no gradient."""


class LinfRegion(Region):
    """An L∞ ball cut with the box is a box itself."""

    def __init__(self, inputs: Tensor, *, threat: ThreatModel) -> None:
        self.inputs = inputs
        self.radius = threat.radius
        self.lower = inputs - threat.radius
        self.upper = inputs + threat.radius
        if threat.bounds is not None:
            self.lower.clamp_(min=threat.bounds.low)
            self.upper.clamp_(max=threat.bounds.high)

    def project(self, points: Tensor) -> Tensor:
        """Returns the nearest allowed points."""
        return torch.clamp(points, self.lower, self.upper, out=points)

    def random_point(self, streams: ExampleStreams) -> Tensor:
        """Returns a uniform point of the ball, put into the box."""
        noise = streams.uniform(self.inputs.shape[1:]).mul_(2.0).sub_(1.0)
        return self.project(self.inputs.add(noise, alpha=self.radius))

    def unit(self, gradient: Tensor) -> Tensor:
        """Returns the sign of each coordinate."""
        return gradient.sign()


class L2Region(Region):
    """A Euclidean ball cut with the box."""

    def __init__(self, inputs: Tensor, *, threat: ThreatModel) -> None:
        self.inputs = inputs
        self.radius = threat.radius
        self.bounds = threat.bounds

    def project(self, points: Tensor) -> Tensor:
        """Returns the nearest points of the ball, then put into the box.

        Inputs lie in the box, so that clipping only shortens the perturbation.
        """
        change = points.sub_(self.inputs)
        change.mul_(self.radius / lengths(change).clamp(min=max(self.radius, TINY)))
        points = change.add_(self.inputs)
        if self.bounds is None:
            return points
        return points.clamp_(self.bounds.low, self.bounds.high)

    def random_point(self, streams: ExampleStreams) -> Tensor:
        """Returns a uniform point of the ball: a random direction, and a radius by its volume."""
        shape = self.inputs.shape[1:]
        direction = self.unit(streams.child("direction").normal(shape))
        share = streams.child("radius").uniform((1,) * len(shape)).pow_(1.0 / shape.numel())
        return self.project(self.inputs.add(direction.mul_(share), alpha=self.radius))

    def unit(self, gradient: Tensor) -> Tensor:
        """Returns the gradient divided by its length."""
        return gradient / lengths(gradient).clamp(min=TINY)


TINY = torch.finfo(torch.float32).tiny
REGIONS = {Norm.LINF: LinfRegion, Norm.L2: L2Region}


def region(inputs: Tensor, *, threat: ThreatModel) -> Region:
    """Returns the points that ``threat`` allows around ``inputs``, shape (N, *input_shape)."""
    return REGIONS[threat.norm](inputs, threat=threat)


def lengths(perturbations: Tensor) -> Tensor:
    """Returns the Euclidean length of each example, shaped to multiply the perturbations."""
    flat: Tensor = torch.linalg.vector_norm(perturbations.flatten(1), dim=1)
    return flat.view(-1, *(1,) * (perturbations.ndim - 1))
