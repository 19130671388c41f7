r"""Fast minimum-norm attacks.

Algorithm 1: the ball around the input shrinks or grows until the boundary is found in it,

.. math::
    \epsilon_k = \begin{cases}
    \|\delta_{k-1}\|_p + |L| / \|\nabla L\|_q & \text{nothing adversarial found so far} \\
    (1 + \gamma_k) \, \epsilon_{k-1} & \text{found, but this point is not adversarial} \\
    \min\left((1 - \gamma_k) \, \epsilon_{k-1}, \|\delta^\star\|_p\right) & \text{adversarial}
    \end{cases}

and the point climbs in it, :math:`\delta_k = \Pi_{\epsilon_k}(\delta_{k-1} + \alpha_k g/\|g\|_2)`,
and is put into the box.  L is the margin of Carlini and Wagner, and both step sizes decay along a
cosine.

Source: M. Pintor, F. Roli, W. Brendel and B. Biggio, "Fast minimum-norm adversarial attacks through
adaptive norm constraints", NeurIPS 2021, https://arxiv.org/abs/2102.12827.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from gibbon.attacks.base import STRICT, Length
from gibbon.attacks.minimal import MinimalNormAttack
from gibbon.attacks.toolkit.linear_boundary import dual_size
from gibbon.attacks.toolkit.minimal_search import Aim, Nearest, finite
from gibbon.attacks.toolkit.projections import TINY, lengths
from gibbon.attacks.toolkit.targets import Target
from gibbon.core.rng import ExampleStreams
from gibbon.core.threat import Bounds, Norm
from gibbon.metrics.distances import distances, like
from gibbon.models.classifier import Classifier


@dataclass(frozen=True, kw_only=True, config=STRICT)
class FMN(MinimalNormAttack):
    """Climbs the margin inside a ball that closes in on the boundary.

    The paper's L0 ball is left out.  Two departures, without which the algorithm creeps up to a
    boundary and never crosses it where the box holds it back, as on MNIST in L2: the radius guessed
    from the gradient is taken 1 + gamma times as large, and coordinates that the gradient would
    take out of the box count neither in it nor in the step.  An example whose gradient is zero or
    NaN does not move at that step, and its radius is not guessed.

    Args:
        steps: gradient steps; the paper has 10 to 1,000.
        step_size: the first step, in the units of the input; the last is ``last_step`` of it.
        last_step: the last step as a share of the first.
        gamma: by which factor the radius changes at the first step.
        last_gamma: the same at the last step.
        target: which class is aimed at, ``"none"`` for any wrong one.
    """

    norms: ClassVar[tuple[Norm, ...]] = (Norm.LINF, Norm.L2, Norm.L1)

    steps: Annotated[int, Field(ge=1)] = 100
    step_size: Annotated[Length, Field(gt=0)] = 1.0
    last_step: Annotated[float, Field(gt=0, le=1)] = 0.01
    gamma: Annotated[float, Field(gt=0, lt=1)] = 0.05
    last_gamma: Annotated[float, Field(gt=0, lt=1)] = 0.001
    target: Target = "none"

    def nearest(
        self,
        classifier: Classifier,
        inputs: Tensor,
        *,
        labels: Tensor,
        norm: Norm,
        bounds: Bounds | None,
        streams: ExampleStreams,
    ) -> Iterator[Tensor]:
        """Yields the one try: a pass forward and back a step, and one forward at the end."""
        nearest = Nearest(inputs, norm=norm)
        aim = Aim.choose(self.target, classifier, inputs, labels=labels, streams=streams)
        points = inputs
        radius = torch.full_like(nearest.distances, torch.inf)
        for step in range(self.steps):
            cosine = (1 + math.cos(math.pi * step / self.steps)) / 2
            alpha = self.step_size * (self.last_step + (1 - self.last_step) * cosine)
            gamma = self.last_gamma + (self.gamma - self.last_gamma) * cosine
            outputs, gradient = classifier.ascend(points, aim.ascent)
            reached = aim.reached(outputs)
            nearest.offer(points, reached)
            gradient = _usable(finite(gradient), points, bounds)
            size = dual_size(gradient, norm=norm)
            boundary = distances(points, inputs, norm=norm) + aim.margin(outputs).abs() / size
            guess = torch.where(size > 0, boundary, radius)
            outward = torch.where(torch.isfinite(nearest.distances), radius, guess) * (1 + gamma)
            inward = torch.minimum((1 - gamma) * radius, nearest.distances)
            radius = torch.where(reached, inward, outward)
            change = points - inputs
            change.add_(gradient / lengths(gradient).clamp(min=TINY), alpha=alpha)
            points = inputs + into_ball(change, radius, norm=norm)
            if bounds is not None:
                points.clamp_(bounds.low, bounds.high)
        with torch.no_grad():
            nearest.offer(points, aim.reached(classifier(points)))
        yield nearest.points


def _usable(gradient: Tensor, points: Tensor, bounds: Bounds | None) -> Tensor:
    """Returns the gradient without the coordinates that would leave the box; it is overwritten."""
    if bounds is None:
        return gradient
    leaving = ((points <= bounds.low) & (gradient < 0)) | ((points >= bounds.high) & (gradient > 0))
    return gradient.masked_fill_(leaving, 0.0)


def into_ball(change: Tensor, radius: Tensor, *, norm: Norm) -> Tensor:
    """Returns the nearest perturbations, in L2, within a radius of their own each, shape (N,).

    >>> into_ball(torch.tensor([[3.0, -1.0]]), torch.tensor([2.0]), norm=Norm.L1)
    tensor([[2., -0.]])
    """
    if norm is Norm.LINF:
        limit = like(radius, change)
        return torch.minimum(torch.maximum(change, -limit), limit)
    if norm is Norm.L2:
        return change * (like(radius, change) / lengths(change).clamp(min=TINY)).clamp(max=1)
    flat = change.flatten(1).abs()
    threshold = like(_soft_threshold(flat, radius), change)
    return change.sign() * (change.abs() - threshold).clamp_(min=0)


def _soft_threshold(sizes: Tensor, radius: Tensor) -> Tensor:
    """Returns by how much all sizes shrink to sum to the radius, shape (N,); 0 where they fit.

    J. Duchi, S. Shalev-Shwartz, Y. Singer and T. Chandra, "Efficient projections onto the l1-ball
    for learning in high dimensions", ICML 2008, figure 1.
    """
    falling = sizes.sort(dim=1, descending=True).values
    counts = torch.arange(1, sizes.shape[1] + 1, device=sizes.device)
    shrink = (falling.cumsum(1) - radius.unsqueeze(1)) / counts
    used = (falling > shrink).sum(1, keepdim=True).clamp(min=1)
    return shrink.gather(1, used - 1).squeeze(1).clamp(min=0)
