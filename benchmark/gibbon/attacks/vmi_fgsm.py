r"""Momentum iterative FGSM with variance tuning, for transfer.

.. math::
    \hat g_{t+1} &= \nabla_x J(x_t, y) \\
    g_{t+1} &= \mu \, g_t + \frac{\hat g_{t+1} + v_t}{\lVert \hat g_{t+1} + v_t \rVert_1} \\
    v_{t+1} &= \frac{1}{N} \sum_{i=1}^N \nabla_x J(x_t + r_i, y) - \hat g_{t+1},
    \qquad r_i \sim U[-(\beta \epsilon)^d, (\beta \epsilon)^d] \\
    x_{t+1} &= \mathrm{Clip}_{x, \epsilon}(x_t + \alpha \, \mathrm{sign}(g_{t+1}))

from :math:`g_0 = v_0 = 0`, with :math:`\alpha = \epsilon / T`.

Departure: gradients are in the exact form (`OutputRule.ascent`), without the factor of 1 minus the
true class's probability.  In the paper's mean neighbours of high confidence have less weight; here
all have equal weight, and saturated models have gradients too.

Source: X. Wang and K. He, "Enhancing the transferability of adversarial attacks through variance
tuning", CVPR 2021, algorithm 1, https://arxiv.org/abs/2103.15571.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from gibbon.attacks.base import STRICT, Attack, Count, PositiveLength, SearchMethod
from gibbon.attacks.mi_fgsm import accumulate
from gibbon.attacks.toolkit.gradients import Gradients
from gibbon.attacks.toolkit.objectives import CrossEntropy
from gibbon.attacks.toolkit.projections import region
from gibbon.core.rng import ExampleStreams
from gibbon.core.threat import Norm, ThreatModel
from gibbon.models.classifier import Classifier

DRAWN_TOGETHER = 1 << 20  # numbers, at most: memory is bounded by the batch


@dataclass(frozen=True, kw_only=True, config=STRICT)
class VMIFGSM(Attack):
    """Corrects each gradient by the difference of the one before from its neighbours' mean.

    Each step costs one forward and backward pass, and one for each neighbour except at the last
    step, whose variance is not used.

    Args:
        steps: number of steps, T.
        decay: of the momentum, μ.
        step_size: length of a step in the units of the input; ε / T if None.
        neighbours: points drawn around each iterate, N.
        reach: the largest distance of a neighbour in each coordinate, in units of epsilon, β;
            neighbours may leave the box, as in the paper.
    """

    norms: ClassVar[tuple[Norm, ...]] = (Norm.LINF,)
    search_method: ClassVar[SearchMethod] = SearchMethod.FOR_TRANSFER

    steps: Count = 10
    decay: Annotated[float, Field(ge=0)] = 1.0
    step_size: PositiveLength | None = None
    neighbours: Count = 20
    reach: Annotated[float, Field(ge=0)] = 1.5

    def propose(
        self,
        classifier: Classifier,
        inputs: Tensor,
        *,
        labels: Tensor,
        threat: ThreatModel,
        streams: ExampleStreams,
    ) -> Iterator[Tensor]:
        """Yields the one candidate."""
        step = self.step_size or threat.radius / self.steps
        allowed, goal = region(inputs, threat=threat), CrossEntropy(labels, classifier.outputs)
        gradients = Gradients(classifier)
        points, momentum, variance = inputs, torch.zeros_like(inputs), torch.zeros_like(inputs)
        reach = self.reach * threat.radius
        of_neighbours = streams.children(range(self.steps)).children(range(self.neighbours))
        keys = of_neighbours.keys.view(self.neighbours, self.steps, len(inputs))
        for number in range(self.steps):
            _, gradient = gradients.at(points, goal.ascent)
            momentum = accumulate(momentum, gradient + variance, decay=self.decay)
            if number < self.steps - 1:
                variance = torch.zeros_like(inputs)
                for near in _neighbours(points, keys[:, number], reach=reach):
                    _, there = gradients.at(near, goal.ascent)
                    variance.add_(there, alpha=1 / self.neighbours)
                variance.sub_(gradient)
            points = allowed.project(points.add(allowed.unit(momentum), alpha=step))
        gradients.check()
        yield points


def _neighbours(points: Tensor, keys: Tensor, *, reach: float) -> Iterator[Tensor]:
    """Yields neighbours of points, which small inputs draw together, in few operations.

    ``keys``, int64, shape (neighbours, N), are those of the neighbours' streams.
    """
    for some in torch.split(keys, max(1, DRAWN_TOGETHER // max(1, points.numel()))):
        draws = ExampleStreams(some.flatten()).uniform(points.shape[1:])
        shifts = draws.mul_(2.0).sub_(1.0).view(-1, *points.shape)
        yield from points.add(shifts, alpha=reach).unbind()
