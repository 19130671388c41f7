r"""Carlini and Wagner's attack in L2.

Section VI-A: minimise over w

.. math::
    \left\|\tfrac12(\tanh w + 1) - x\right\|_2^2 + c \, f\left(\tfrac12(\tanh w + 1)\right), \qquad
    f(x') = \max\left(\max_{i \ne t} Z(x')_i - Z(x')_t, \, -\kappa\right)

with Adam, and search the smallest constant c that succeeds.  In the untargeted form of f the true
class and the best of the others are exchanged.

Source: N. Carlini and D. Wagner, "Towards evaluating the robustness of neural networks", IEEE S&P
2017, https://arxiv.org/abs/1608.04644.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from gibbon.attacks.base import STRICT, Count, PositiveLength
from gibbon.attacks.minimal import NearestSearch
from gibbon.attacks.toolkit.adam import Adam
from gibbon.attacks.toolkit.minimal_search import Constants, Criterion, Nearest, finite
from gibbon.attacks.toolkit.targets import Target
from gibbon.core.rng import ExampleStreams
from gibbon.core.threat import Bounds, Norm
from gibbon.metrics.distances import like
from gibbon.models.classifier import Classifier

# The authors' code: an optimisation is aborted if a tenth of its steps has not decreased the
# objective by a ten-thousandth; here each example is aborted separately.
CHECKS = 10
PROGRESS = 0.9999
INSIDE = 0.999999  # of the way from the middle to the bounds, so that tanh has an inverse
LARGEST = 1e10  # constant, in the authors' code


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CW(NearestSearch):
    """Minimises the distance plus c times a hinge on the outputs, for several constants c.

    One forward and one backward pass a step; examples that make no progress leave the batch, which
    is checked ten times a search.  Outputs may be negative: the best other class is the largest of
    the others, not of the others and zero.  Without a box, the points themselves are optimised.

    Args:
        steps: Adam's steps for each constant; 10,000 in the paper, of which few examples use more
            than a tenth before they are aborted.
        searches: number of constants.
        step_size: Adam's learning rate, in tanh space, or in the input space without a box.
        init_constant: the first constant.
        confidence: kappa, the margin of the wrong class, in the units of the outputs.
        abort_early: abort an example whose objective has stopped decreasing.
        target: the target class, ``"none"`` for any wrong one.
    """

    norms: ClassVar[tuple[Norm, ...]] = (Norm.L2,)

    steps: Count = 10_000
    searches: Count = 9
    step_size: PositiveLength = 0.01
    init_constant: Annotated[float, Field(gt=0)] = 1e-3
    confidence: Annotated[float, Field(ge=0)] = 0.0
    abort_early: bool = True
    target: Target = "none"

    def search(
        self, classifier: Classifier, nearest: Nearest, *, labels: Tensor, streams: ExampleStreams
    ) -> None:
        """Offers the clean inputs, then each iterate for each constant."""
        inputs = nearest.inputs
        criterion = Criterion.choose(
            self.target, classifier, inputs, labels, streams, confidence=self.confidence
        )
        nearest.offer(inputs, criterion.met_at(classifier, inputs))
        rows = nearest.missing
        constants = Constants(torch.full((len(rows),), self.init_constant, device=inputs.device))
        for _ in range(self.searches if len(rows) else 0):
            weights = constants.values
            met = self._minimise(classifier, nearest, rows, criterion=criterion, constants=weights)
            constants.update(met)
            constants.values.clamp_(max=LARGEST)

    def _minimise(
        self,
        classifier: Classifier,
        nearest: Nearest,
        rows: Tensor,
        *,
        criterion: Criterion,
        constants: Tensor,
    ) -> Tensor:
        """Offers each iterate to ``nearest``; returns which rows met the criterion."""
        succeeded = torch.zeros(len(rows), dtype=torch.bool, device=rows.device)
        live, left = torch.arange(len(rows), device=rows.device), rows  # positions in ``rows``
        inputs, bounds, criterion = nearest.inputs[rows], nearest.bounds, criterion.take(rows)
        free = _into_free(inputs, bounds)
        adam = Adam(free, step_size=self.step_size)
        last = torch.full_like(constants, torch.inf)
        for step in range(self.steps):
            points, slope = _into_box(free, bounds)
            outputs, gradient = classifier.ascend(points, criterion.ascent, rows=left)
            lead, required = criterion.margin(outputs), criterion.required(outputs)
            met = lead > required
            nearest.offer(points, met, rows=left)
            succeeded[live] |= met
            # The hinge: a margin beyond the required one gains nothing.
            missing = required - lead
            weights = torch.where(missing > 0, constants, 0.0)
            change = points - inputs
            pull = finite(gradient).mul_(like(weights, gradient))
            free = adam.step(free, (2 * change - pull).mul_(slope))
            if self.abort_early and (step + 1) % max(1, self.steps // CHECKS) == 0:
                costs = change.flatten(1).square().sum(1) + constants * missing.clamp(min=0)
                going = costs <= PROGRESS * last
                keep = going.nonzero().flatten()
                if not len(keep):
                    break
                live, left, inputs, free = live[keep], left[keep], inputs[keep], free[keep]
                criterion, adam = criterion.take(keep), adam.take(keep)
                constants, last = constants[keep], costs[keep]
        return succeeded


def _into_free(points: Tensor, bounds: Bounds | None) -> Tensor:
    """Returns w, shape (N, *input_shape)."""
    if bounds is None:
        return points.clone()
    middle, half = (bounds.low + bounds.high) / 2, bounds.width / 2
    return torch.atanh((points - middle) / half * INSIDE)


def _into_box(free: Tensor, bounds: Bounds | None) -> tuple[Tensor, Tensor]:
    """Returns x' and its derivative in w, both (N, *input_shape)."""
    if bounds is None:
        return free, torch.ones_like(free)
    middle, half = (bounds.low + bounds.high) / 2, bounds.width / 2
    bent = torch.tanh(free)
    points = (middle + half * bent).clamp_(bounds.low, bounds.high)
    return points, half * (1 - bent.square())
