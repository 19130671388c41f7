r"""Projected gradient descent.

.. math::
    x^{t+1} = \Pi_{x + S}\left(x^t + \alpha \, u(\nabla_x L(\theta, x^t, y))\right)

with u the steepest direction in the norm: the sign for L∞, the unit vector for L2.

Source: A. Madry, A. Makelov, L. Schmidt, D. Tsipras and A. Vladu, "Towards deep learning models
resistant to adversarial attacks", ICLR 2018, section 2.1, https://arxiv.org/abs/1706.06083.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from benchmark.attacks.base import STRICT, Attack, Length
from benchmark.attacks.projections import Region, region
from benchmark.classifier import Classifier
from benchmark.outputs import margin, margin_ascent
from benchmark.rng import ExampleStreams
from benchmark.threat import Norm, ThreatModel

# Without a step size the path is 2.5 times epsilon long: far enough to cross the ball from
# anywhere and to turn back, as in the paper's CIFAR-10 challenge (2/255 x 10 steps for 8/255).
PATH_LENGTH = 2.5


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PGD(Attack):
    """Steps along the gradient and projects back, from a random point, several times over.

    Args:
        steps: gradient steps of one run.
        restarts: runs from different random points; each yields one candidate.
        step_size: length of one step in the units of the input; 2.5 epsilon / steps if None.
        random_start: start at a uniform point of the ball rather than at the input.
        loss: ``"cross-entropy"`` (the loss the model was trained with, in its exact form) or
            ``"margin"`` (Carlini and Wagner 2017: the best wrong class against the true one).
        keep: which iterate is returned: ``"last"``; ``"best-loss"``, which costs one more forward
            pass; or ``"first-success"``, the first misclassified one, else the last.
    """

    norms: ClassVar[tuple[Norm, ...]] = (Norm.LINF, Norm.L2)

    steps: Annotated[int, Field(ge=1)] = 40
    restarts: Annotated[int, Field(ge=1)] = 1
    step_size: Annotated[Length, Field(gt=0)] | None = None
    random_start: bool = True
    loss: Literal["cross-entropy", "margin"] = "cross-entropy"
    keep: Literal["last", "best-loss", "first-success"] = "last"

    def propose(
        self,
        classifier: Classifier,
        inputs: Tensor,
        *,
        labels: Tensor,
        threat: ThreatModel,
        streams: ExampleStreams,
    ) -> Iterator[Tensor]:
        """Yields one candidate a restart."""
        allowed = region(inputs, threat=threat)
        step = self.step_size
        if step is None:
            step = PATH_LENGTH * threat.radius / self.steps
        for restart in range(self.restarts):
            start = inputs
            if self.random_start:
                start = allowed.random_point(streams.child(restart))
            yield self._climb(classifier, start, labels=labels, allowed=allowed, step=step)

    def _climb(
        self, classifier: Classifier, start: Tensor, *, labels: Tensor, allowed: Region, step: float
    ) -> Tensor:
        def ascent(outputs: Tensor) -> Tensor:
            if self.loss == "margin":
                return margin_ascent(outputs, labels)
            return classifier.outputs.ascent(outputs, labels)

        points = start
        kept = _Kept(points, torch.full_like(labels, -torch.inf, dtype=points.dtype))
        for _ in range(self.steps):
            outputs, gradient = classifier.ascend(points, ascent)
            if self.keep != "last":
                kept = kept.better(points, self._score(classifier, outputs, labels))
            points = allowed.project(points.add(allowed.unit(gradient), alpha=step))
        if self.keep == "last":
            return points
        if self.keep == "best-loss":
            with torch.no_grad():
                outputs = classifier(points)
            return kept.better(points, self._score(classifier, outputs, labels)).points
        return kept.or_else(points)

    def _score(self, classifier: Classifier, outputs: Tensor, labels: Tensor) -> Tensor:
        if self.keep == "first-success":
            succeeded = margin(outputs, labels) > 0
            return torch.where(succeeded, 1.0, -torch.inf)
        if self.loss == "margin":
            return margin(outputs, labels)
        return classifier.outputs.exact_loss(outputs, labels)


class _Kept:
    """The best point of each example so far; an equal one does not replace it."""

    def __init__(self, points: Tensor, scores: Tensor) -> None:
        self.points = points
        self.scores = scores

    def better(self, points: Tensor, scores: Tensor) -> _Kept:
        improved = scores > self.scores
        chosen = torch.where(_like(improved, points), points, self.points)
        return _Kept(chosen, torch.where(improved, scores, self.scores))

    def or_else(self, points: Tensor) -> Tensor:
        found = torch.isfinite(self.scores)
        return torch.where(_like(found, points), self.points, points)


def _like(mask: Tensor, points: Tensor) -> Tensor:
    return mask.view(-1, *(1,) * (points.ndim - 1))
