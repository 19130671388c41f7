"""Search state shared by minimal-norm attacks: nearest points found, and the constants tried."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gibbon.attacks.toolkit.objectives import RESOLUTION
from gibbon.attacks.toolkit.targets import Target, choose_targets
from gibbon.core.rng import ExampleStreams
from gibbon.core.threat import Norm, ThreatModel
from gibbon.metrics.distances import distances, like
from gibbon.models.classifier import Classifier
from gibbon.models.outputs import margin, margin_ascent

# Carlini and Wagner's code: the constant grows tenfold until it succeeds, then is bisected.
GROWTH = 10.0


def within(inputs: Tensor, found: Tensor, *, threat: ThreatModel) -> Tensor:
    """Returns the points found that lie within epsilon of their inputs; elsewhere the inputs.

    Both have shape (N, *input_shape).  Points whose distance is NaN are outside.
    """
    near = distances(found, inputs, norm=threat.norm) <= threat.radius
    return torch.where(like(near, inputs), found, inputs)


@dataclass(frozen=True)
class Aim:
    """When a search has succeeded, and which way it climbs.

    Args:
        classes: int64, shape (N,): the true classes, or the targets.
        targeted: whether ``classes`` are targets.
        confidence: by how much the winning output must lead (kappa of Carlini and Wagner).
    """

    classes: Tensor
    targeted: bool = False
    confidence: float = 0.0

    @classmethod
    def choose(
        cls,
        target: Target,
        classifier: Classifier,
        inputs: Tensor,
        *,
        labels: Tensor,
        streams: ExampleStreams,
        confidence: float = 0.0,
    ) -> Aim:
        """Returns what to aim at: one forward pass where that is a class of its own."""
        if target == "none":
            return cls(labels, targeted=False, confidence=confidence)
        with torch.no_grad():
            outputs = classifier(inputs)
        targets = choose_targets(target, outputs, labels, streams)
        return cls(targets, targeted=True, confidence=confidence)

    def margin(self, outputs: Tensor) -> Tensor:
        """Returns by how much the aim is reached, shape (N,); negative where it is not."""
        ahead = margin(outputs, self.classes)
        return -ahead if self.targeted else ahead

    def required(self, outputs: Tensor) -> Tensor:
        """Returns the margin that counts: the confidence, and more than rounding, shape (N,)."""
        return RESOLUTION * outputs.abs().amax(1) + self.confidence

    def ascent(self, outputs: Tensor) -> Tensor:
        """Returns the gradient of `margin` in the outputs, shape (N, K)."""
        return self.signed(margin_ascent(outputs, self.classes))

    def signed(self, ascent: Tensor) -> Tensor:
        """Returns an ascent away from ``classes``, turned round where they are targets."""
        return ascent.neg() if self.targeted else ascent

    def reached(self, outputs: Tensor) -> Tensor:
        """Says for which examples the aim is reached, bool, shape (N,); never by NaN outputs."""
        return self.margin(outputs) > self.required(outputs)

    def take(self, rows: Tensor) -> Aim:
        """Returns the aim of some of the examples: ``rows`` is a mask or positions."""
        return replace(self, classes=self.classes[rows])


class Nearest:
    """The nearest success of each example so far.

    Attributes:
        points: shape (N, *input_shape): the nearest success, the input where there is none.
        distances: shape (N,): how far it is, infinite where there is none.
    """

    def __init__(self, inputs: Tensor, *, norm: Norm) -> None:
        self.inputs = inputs
        self.norm = norm
        self.points = inputs.clone()
        self.distances = torch.full((len(inputs),), torch.inf, device=inputs.device)

    def offer(self, points: Tensor, reached: Tensor, *, rows: Tensor | None = None) -> None:
        """Keeps those points that reached the aim and are nearer than what was found before.

        ``rows`` gives the positions of the examples offered where they are not all.
        """
        if rows is None:
            rows = torch.arange(len(self.inputs), device=points.device)
        measured = distances(points, self.inputs[rows], norm=self.norm).to(self.distances.dtype)
        before = self.distances[rows]
        nearer = reached & (measured < before)
        self.distances[rows] = torch.where(nearer, measured, before)
        self.points[rows] = torch.where(like(nearer, points), points, self.points[rows])

    @property
    def missing(self) -> Tensor:
        """The positions of the examples without any success, int64."""
        return torch.isinf(self.distances).nonzero().flatten()


class Constants:
    """The constant c that weighs success against distance, searched for each example by itself.

    It grows tenfold until the aim is reached, and is then bisected between the largest that failed
    and the smallest that succeeded.

    >>> constants = Constants(torch.tensor([0.01]))
    >>> constants.update(torch.tensor([False])); constants.values
    tensor([0.1000])
    >>> constants.update(torch.tensor([True])); constants.values
    tensor([0.0550])
    """

    def __init__(self, start: Tensor) -> None:
        self.values = start
        self.lower = torch.zeros_like(start)
        self.upper = torch.full_like(start, torch.inf)

    def update(self, reached: Tensor) -> None:
        """Moves each constant, given whether it was large enough."""
        self.upper = torch.where(reached, torch.minimum(self.upper, self.values), self.upper)
        self.lower = torch.where(reached, self.lower, torch.maximum(self.lower, self.values))
        between = (self.lower + self.upper) / 2
        self.values = torch.where(torch.isinf(self.upper), GROWTH * self.values, between)


def finite(gradient: Tensor) -> Tensor:
    """Returns a copy of the gradient with zeros in the place of NaN and infinity."""
    return gradient.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
