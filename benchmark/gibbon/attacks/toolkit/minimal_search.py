"""Search state shared by minimal-norm attacks: nearest points found, and the constants tried."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gibbon.attacks.toolkit.example_rows import ExampleRows
from gibbon.attacks.toolkit.objectives import RESOLUTION
from gibbon.attacks.toolkit.projections import choose
from gibbon.attacks.toolkit.targets import Target, aim, choose_targets
from gibbon.core.rng import ExampleStreams
from gibbon.core.threat import Bounds, Norm, ThreatModel
from gibbon.metrics.distances import distances
from gibbon.models.classifier import Classifier
from gibbon.models.outputs import margin, margin_ascent

# Carlini and Wagner's code: the constant grows tenfold until it succeeds, then is bisected.
GROWTH = 10.0


def within(inputs: Tensor, found: Tensor, *, threat: ThreatModel) -> Tensor:
    """Returns the points found if they lie within epsilon of their inputs, else the inputs.

    Both have shape (N, *input_shape).  Points whose distance is NaN count as outside.
    """
    near = distances(found, inputs, norm=threat.norm) <= threat.radius
    return choose(near, found, inputs)


@dataclass(frozen=True)
class Criterion(ExampleRows):
    """The condition under which a search has succeeded, and its margin.

    Args:
        classes: int64, shape (N,): the true classes, or the targets.
        targeted: whether ``classes`` are targets.
        confidence: the margin that the winning output must have (kappa of Carlini and Wagner).
    """

    classes: Tensor
    targeted: bool = False
    confidence: float = 0.0

    @classmethod
    def choose(
        cls, target: Target, classifier: Classifier, inputs: Tensor, labels: Tensor,
        streams: ExampleStreams, *, confidence: float = 0.0,
    ) -> Criterion:  # fmt: skip
        """Returns the criterion of an attack; one forward pass if it is targeted."""
        if target == "none":
            return cls(labels, targeted=False, confidence=confidence)
        with torch.no_grad():
            outputs = classifier(inputs)
        targets = choose_targets(target, outputs, labels, streams)
        aim(target, classifier, labels, targets)
        return cls(targets, targeted=True, confidence=confidence)

    def margin(self, outputs: Tensor) -> Tensor:
        """Returns the lead of the wrong or target class, shape (N,); negative if there is none."""
        lead = margin(outputs, self.classes)
        return -lead if self.targeted else lead

    def required(self, outputs: Tensor) -> Tensor:
        """Returns the smallest margin that counts, shape (N,): the confidence, plus rounding."""
        return RESOLUTION * outputs.abs().amax(1) + self.confidence

    def ascent(self, outputs: Tensor) -> Tensor:
        """Returns the gradient of `margin` in the outputs, shape (N, K)."""
        return self.signed(margin_ascent(outputs, self.classes))

    def signed(self, ascent: Tensor) -> Tensor:
        """Returns an ascent away from ``classes``, negated if they are targets."""
        return ascent.neg() if self.targeted else ascent

    def met(self, outputs: Tensor, margins: Tensor | None = None) -> Tensor:
        """Returns which examples meet the criterion, bool, shape (N,); never with NaN outputs.

        ``margins`` are those of the outputs, None if they are not known yet.
        """
        margins = self.margin(outputs) if margins is None else margins
        return margins > self.required(outputs)

    def met_at(self, classifier: Classifier, points: Tensor) -> Tensor:
        """Returns which examples meet the criterion at these points: one forward pass."""
        with torch.no_grad():
            return self.met(classifier(points))


class Nearest:
    """The nearest success of each example so far.

    Args:
        inputs: shape (N, *input_shape).
        norm: the norm of distances.
        bounds: the box to stay in, or None.

    Attributes:
        points: shape (N, *input_shape): the nearest success, the input if there is none.
        distances: shape (N,): its distance, infinite if there is none.
    """

    def __init__(self, inputs: Tensor, *, norm: Norm, bounds: Bounds | None = None) -> None:
        self.inputs, self.norm, self.bounds = inputs, norm, bounds
        self.points = inputs.clone()
        self.distances = torch.full((len(inputs),), torch.inf, device=inputs.device)

    def offer(self, points: Tensor, met: Tensor, *, rows: Tensor | None = None) -> Tensor:
        """Keeps the points that meet the criterion and are nearer than those found before.

        ``rows`` are the positions of the examples offered, None for all.  Returns the distances of
        the points, shape (M,).
        """
        if rows is None:
            measured = distances(points, self.inputs, norm=self.norm).to(self.distances.dtype)
            nearer = met & (measured < self.distances)
            self.distances = torch.where(nearer, measured, self.distances)
            self.points = choose(nearer, points, self.points)
            return measured
        measured = distances(points, self.inputs[rows], norm=self.norm).to(self.distances.dtype)
        before = self.distances[rows]
        nearer = met & (measured < before)
        self.distances[rows] = torch.where(nearer, measured, before)
        self.points[rows] = choose(nearer, points, self.points[rows])
        return measured

    @property
    def missing(self) -> Tensor:
        """The positions of the examples without any success, int64."""
        return torch.isinf(self.distances).nonzero().flatten()


class Constants:
    """The constant c that weighs success against distance, searched for each example separately.

    It grows tenfold until the criterion is met, and is then bisected between the largest that
    failed and the smallest that succeeded.

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

    def update(self, met: Tensor) -> None:
        """Updates each constant; ``met`` says whether it was large enough, bool, shape (N,)."""
        self.upper = torch.where(met, torch.minimum(self.upper, self.values), self.upper)
        self.lower = torch.where(met, self.lower, torch.maximum(self.lower, self.values))
        between = (self.lower + self.upper) / 2
        self.values = torch.where(torch.isinf(self.upper), GROWTH * self.values, between)


def finite(gradient: Tensor) -> Tensor:
    """Returns a copy of the gradient with NaN and infinity replaced by zero."""
    return gradient.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
