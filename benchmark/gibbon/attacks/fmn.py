r"""The fast minimum-norm attacks.

Algorithm 1: the radius of a ball around the input shrinks or grows to that of the boundary,

.. math::
    \epsilon_k = \begin{cases}
    \|\delta_{k-1}\|_p + |L| / \|\nabla L\|_q & \text{no adversarial point found so far} \\
    (1 + \gamma_k) \, \epsilon_{k-1} & \text{found before, but this point is not adversarial} \\
    \min\left((1 - \gamma_k) \, \epsilon_{k-1}, \|\delta^\star\|_p\right) & \text{adversarial}
    \end{cases}

and the point ascends in it, :math:`\delta_k = \Pi_{\epsilon_k}(\delta_{k-1} + \alpha_k g/\|g\|_2)`,
and is clipped to the box.  L is the margin of Carlini and Wagner; :math:`\alpha_k` and
:math:`\gamma_k` decay along a cosine.

Source: M. Pintor, F. Roli, W. Brendel and B. Biggio, "Fast minimum-norm adversarial attacks through
adaptive norm constraints", NeurIPS 2021, https://arxiv.org/abs/2102.12827.
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
from gibbon.attacks.toolkit.linear_boundary import dual_size
from gibbon.attacks.toolkit.minimal_search import Criterion, Nearest, finite
from gibbon.attacks.toolkit.projections import TINY, inward, lengths
from gibbon.attacks.toolkit.targets import Target
from gibbon.core.rng import ExampleStreams
from gibbon.core.threat import Norm
from gibbon.metrics.distances import clip_, like
from gibbon.models.classifier import Classifier


@dataclass(frozen=True, kw_only=True, config=STRICT)
class FMN(NearestSearch):
    """Maximises the margin inside a ball whose radius converges to the boundary's.

    The paper's L0 norm is left out.  Two departures, without which the algorithm approaches a
    boundary and never crosses it if the box limits the step, as on MNIST in L2: the radius
    estimated from the gradient is multiplied by 1 + gamma, and coordinates that the gradient would
    move out of the box count neither in the estimate nor in the step.  An example whose gradient is
    zero or NaN does not move at that step, and its radius is not estimated.

    Args:
        steps: gradient steps; the paper has 10 to 1,000.
        step_size: the first step, in the units of the input; the last is ``last_step`` of it.
        last_step: the last step as a share of the first.
        gamma: the relative change of the radius at the first step.
        last_gamma: the relative change of the radius at the last step.
        target: the target class, ``"none"`` for any wrong one.
    """

    norms: ClassVar[tuple[Norm, ...]] = (Norm.LINF, Norm.L2, Norm.L1)

    steps: Count = 100
    step_size: PositiveLength = 1.0
    last_step: Annotated[float, Field(gt=0, le=1)] = 0.01
    gamma: Annotated[float, Field(gt=0, lt=1)] = 0.05
    last_gamma: Annotated[float, Field(gt=0, lt=1)] = 0.001
    target: Target = "none"

    def search(
        self, classifier: Classifier, nearest: Nearest, *, labels: Tensor, streams: ExampleStreams
    ) -> None:
        """Offers each iterate: a forward and backward pass a step, and a last forward pass."""
        inputs, norm, bounds = nearest.inputs, nearest.norm, nearest.bounds
        criterion = Criterion.choose(self.target, classifier, inputs, labels, streams)
        points = inputs
        radius = torch.full_like(nearest.distances, torch.inf)
        for step in range(self.steps):
            cosine = (1 + math.cos(math.pi * step / self.steps)) / 2
            alpha = self.step_size * (self.last_step + (1 - self.last_step) * cosine)
            gamma = self.last_gamma + (self.gamma - self.last_gamma) * cosine
            outputs, gradient = classifier.ascend(points, criterion.ascent)
            lead = criterion.margin(outputs)
            met = criterion.met(outputs, lead)
            lead = lead.to(points.dtype)
            away = nearest.offer(points, met)
            gradient = inward(finite(gradient), points, bounds=bounds)
            size = dual_size(gradient, norm=norm)
            boundary = away + lead.abs() / size
            guess = torch.where(size > 0, boundary, radius)
            grown = torch.where(nearest.distances < torch.inf, radius, guess) * (1 + gamma)
            shrunk = torch.minimum((1 - gamma) * radius, nearest.distances)
            radius = torch.where(met, shrunk, grown)
            change = points - inputs
            change.add_(gradient / lengths(gradient).clamp(min=TINY), alpha=alpha)
            points = clip_(inputs + into_ball(change, radius, norm=norm), bounds)
        nearest.offer(points, criterion.met_at(classifier, points))


def into_ball(change: Tensor, radius: Tensor, *, norm: Norm) -> Tensor:
    """Projects each perturbation, in L2, onto the ball of its own radius, shape (N,).

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
    """Returns the threshold that soft-thresholds sizes to the radius, shape (N,); 0 inside it.

    J. Duchi, S. Shalev-Shwartz, Y. Singer and T. Chandra, "Efficient projections onto the l1-ball
    for learning in high dimensions", ICML 2008, figure 1.
    """
    falling = sizes.sort(dim=1, descending=True).values
    counts = torch.arange(1, sizes.shape[1] + 1, device=sizes.device)
    shrink = (falling.cumsum(1) - radius.unsqueeze(1)) / counts
    used = (falling > shrink).sum(1, keepdim=True).clamp(min=1)
    return shrink.gather(1, used - 1).squeeze(1).clamp(min=0)
