r"""The basic iterative method: FGSM in small steps, each clipped to the ball.

.. math::
    x_0 = x, \qquad
    x_{n+1} = \mathrm{Clip}_{x, \epsilon}(x_n + \alpha \, \mathrm{sign}(\nabla_x J(x_n, y)))

With a target class :math:`t`, as in the iterative least-likely class method, the point before
clipping is :math:`x_n - \alpha \, \mathrm{sign}(\nabla_x J(x_n, t))`.

Source: A. Kurakin, I. Goodfellow and S. Bengio, "Adversarial examples in the physical world", 2016,
sections 2.2 and 2.3, https://arxiv.org/abs/1607.02533.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import ClassVar

from pydantic.dataclasses import dataclass
from torch import Tensor

from gibbon.attacks.base import STRICT, Attack, Count, PositiveLength, SearchMethod, relative_length
from gibbon.attacks.toolkit.ascent_loop import Ascent, KeptIterate, State, projected_step
from gibbon.attacks.toolkit.projections import region
from gibbon.attacks.toolkit.targets import Target, choose_objective
from gibbon.core.rng import ExampleStreams
from gibbon.core.threat import PIXEL_STEPS, Bounds, Norm, ThreatModel
from gibbon.models.classifier import Classifier


@dataclass(frozen=True, kw_only=True, config=STRICT)
class BIM(Attack):
    """Takes FGSM steps from the input, each clipped to the ball and the box.

    Args:
        steps: number of steps; None for the paper's min(ε + 4, 1.25 ε), with ε in steps of an 8-bit
            pixel, rounded up.
        step_size: length of a step in the units of the input; None for the paper's one step of an
            8-bit pixel, 1/255 of the width of the bounds.
        target: ``"none"``, or the target class: ``"least-likely"`` as in the paper, ``"second"`` or
            ``"random"``; never the true one.
        keep: the iterate that is returned (`gibbon.attacks.toolkit.ascent_loop`).
    """

    norms: ClassVar[tuple[Norm, ...]] = (Norm.LINF,)
    search_method: ClassVar[SearchMethod] = SearchMethod.ITERATIVE

    steps: Count | None = None
    step_size: PositiveLength | None = None
    target: Target = "none"
    keep: KeptIterate = "last"

    def path_length(self, threat: ThreatModel, *, bounds: Bounds) -> float:
        """Returns the length of the path in units of epsilon, also under the paper's rules."""
        step, steps = self._lengths(threat, width=bounds.width)
        return relative_length(steps, step, threat=threat)

    def _lengths(self, threat: ThreatModel, *, width: float) -> tuple[float, int]:
        """Returns the length of a step in the units of the input, and the number of steps."""
        pixel = width / PIXEL_STEPS
        return self.step_size or pixel, self.steps or _steps(threat.radius / pixel)

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
        step, steps = self._lengths(threat, width=classifier.bounds.width)
        objective = choose_objective(self.target, classifier, inputs, labels, streams)
        start = State(inputs, region(inputs, threat=threat), objective)
        return Ascent(projected_step(step), steps, self.keep).run(classifier, start)


def _steps(pixels: float) -> int:
    # A budget of 8/255 is 8 steps of a pixel but for rounding.
    exact = min(pixels + 4, 1.25 * pixels)
    return max(1, math.ceil(exact - 1e-6))
