r"""Decoupled direction and norm.

Algorithm 1: gradient steps learn the direction, the norm grows or shrinks by a factor,

.. math::
    \delta_k = \delta_{k-1} + \alpha_k \frac{g}{\|g\|_2}, \qquad
    \epsilon_k = (1 \mp \gamma) \, \epsilon_{k-1}, \qquad
    \tilde x_k = \mathrm{clip}\left(x + \epsilon_k \frac{\delta_k}{\|\delta_k\|_2}\right)

with minus if :math:`\tilde x_{k-1}` was adversarial; the nearest adversarial iterate is kept.

Source: J. Rony, L. G. Hafemann, L. S. Oliveira, I. Ben Ayed, R. Sabourin and E. Granger,
"Decoupling direction and norm for efficient gradient-based L2 adversarial attacks and defenses",
CVPR 2019, https://arxiv.org/abs/1811.09600.
"""

from __future__ import annotations

import math
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from gibbon.attacks.base import STRICT, Count, PositiveLength
from gibbon.attacks.minimal import NearestSearch
from gibbon.attacks.toolkit.minimal_search import Criterion, Nearest, finite
from gibbon.attacks.toolkit.projections import TINY, lengths
from gibbon.attacks.toolkit.targets import Target
from gibbon.core.rng import ExampleStreams
from gibbon.core.threat import Norm
from gibbon.metrics.distances import clip_, like
from gibbon.models.classifier import Classifier

LAST_STEP = 0.01  # section 5: the step size goes from 1 to 0.01 along a cosine


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DDN(NearestSearch):
    """Learns a direction by gradient steps and adapts the norm at each of them.

    The gradient is that of the training loss in its exact form, which does not vanish at high
    confidence.  As in the authors' code a step starts from the last perturbation, after scaling and
    clipping, not from the sum of all steps.  Unlike the paper's, candidates are not rounded to
    pixel values.  An example whose gradient is zero keeps its direction for that step; one without
    any gradient does not move.

    Args:
        steps: gradient steps; the paper has 100, 300 and 1,000.
        gamma: the relative change of the norm at each step.
        init_norm: the first norm, in the units of the input.
        target: the target class, ``"none"`` for any wrong one.
    """

    norms: ClassVar[tuple[Norm, ...]] = (Norm.L2,)

    steps: Count = 100
    gamma: Annotated[float, Field(gt=0, lt=1)] = 0.05
    init_norm: PositiveLength = 1.0
    target: Target = "none"

    def search(
        self, classifier: Classifier, nearest: Nearest, *, labels: Tensor, streams: ExampleStreams
    ) -> None:
        """Offers each iterate: a forward and backward pass a step, and a last forward pass."""
        inputs, bounds = nearest.inputs, nearest.bounds
        criterion = Criterion.choose(self.target, classifier, inputs, labels, streams)

        def ascent(outputs: Tensor) -> Tensor:
            return criterion.signed(classifier.outputs.ascent(outputs, criterion.classes))

        points, direction = inputs, torch.zeros_like(inputs)
        budget = torch.full_like(nearest.distances, self.init_norm)
        for step in range(self.steps):
            outputs, gradient = classifier.ascend(points, ascent)
            met = criterion.met(outputs)
            nearest.offer(points, met)
            budget = budget * torch.where(met, 1 - self.gamma, 1 + self.gamma)
            gradient = finite(gradient)
            unit = gradient / lengths(gradient).clamp(min=TINY)
            direction.add_(unit, alpha=_step_size(step, steps=self.steps))
            scale = like(budget, inputs) / lengths(direction).clamp(min=TINY)
            points = clip_(inputs + scale * direction, bounds)
            direction = points - inputs
        nearest.offer(points, criterion.met_at(classifier, points))


def _step_size(step: int, *, steps: int) -> float:
    return LAST_STEP + (1 - LAST_STEP) * (1 + math.cos(math.pi * step / steps)) / 2
