r"""The momentum iterative fast gradient sign method.

.. math::
    g_{t+1} &= \mu \, g_t + \frac{\nabla_x J(x_t, y)}{\lVert \nabla_x J(x_t, y) \rVert_1} && (6) \\
    x_{t+1} &= x_t + \alpha \, \mathrm{sign}(g_{t+1}) && (7) \\
    x_{t+1} &= x_t + \alpha \, g_{t+1} / \lVert g_{t+1} \rVert_2 && \text{in L2}

with :math:`\alpha = \epsilon / T`, clipped to the ball and the box after each step.

Source: Y. Dong, F. Liao, T. Pang, H. Su, J. Zhu, X. Hu and J. Li, "Boosting adversarial attacks
with momentum", CVPR 2018, algorithm 1 and section 3.3, https://arxiv.org/abs/1710.06081.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated, ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from gibbon.attacks.base import STRICT, Attack, Count, PositiveLength, SearchMethod
from gibbon.attacks.toolkit.ascent_loop import Ascent, KeptIterate, State
from gibbon.attacks.toolkit.projections import TINY, region
from gibbon.attacks.toolkit.targets import Target, choose_objective
from gibbon.core.rng import ExampleStreams
from gibbon.core.threat import Bounds, Norm, ThreatModel
from gibbon.metrics.distances import like
from gibbon.models.classifier import Classifier


@dataclass(frozen=True, kw_only=True, config=STRICT)
class MIFGSM(Attack):
    """Takes steps along a decaying sum of gradients, each divided by its L1 norm.

    Args:
        steps: number of steps, T.
        decay: of the momentum, μ; with 0 there is none, with 1 all gradients have equal weight.
        step_size: length of a step in the units of the input; ε / T if None.
        target: ``"none"``, or the target class: ``"least-likely"``, ``"second"`` or ``"random"``;
            never the true one.
        keep: the iterate that is returned (`gibbon.attacks.toolkit.ascent_loop`).
    """

    norms: ClassVar[tuple[Norm, ...]] = (Norm.LINF, Norm.L2)
    search_method: ClassVar[SearchMethod] = SearchMethod.ITERATIVE

    steps: Count = 10
    decay: Annotated[float, Field(ge=0)] = 1.0
    step_size: PositiveLength | None = None
    target: Target = "none"
    keep: KeptIterate = "last"

    def path_length(self, threat: ThreatModel, *, bounds: Bounds) -> float:
        """Returns the length of the path in units of epsilon: 1 under the paper's rule."""
        return 1.0 if self.step_size is None else super().path_length(threat, bounds=bounds)

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
        objective = choose_objective(self.target, classifier, inputs, labels, streams)

        def update(state: State, gradient: Tensor) -> State:
            return momentum_step(state, gradient, decay=self.decay, length=step)

        start = State(inputs, region(inputs, threat=threat), objective)
        return Ascent(update, self.steps, self.keep).run(classifier, start)


def momentum_step(state: State, gradient: Tensor, *, decay: float, length: float) -> State:
    """Returns the state after equations (6) and (7), projected; ``length`` is alpha."""
    momentum = accumulate(state.memory, gradient, decay=decay)
    stepped = state.points.add(state.allowed.unit(momentum), alpha=length)
    return replace(state, points=state.allowed.project(stepped), memory=momentum)


def accumulate(momentum: Tensor | None, gradient: Tensor, *, decay: float) -> Tensor:
    """Returns equation (6), a new tensor; there is no momentum at the first step.

    A gradient of zero adds zero, not 0 / 0.
    """
    sizes = gradient.flatten(1).abs().sum(1).clamp_(min=TINY)
    unit = gradient / like(sizes, gradient)
    return unit if momentum is None else unit.add_(momentum, alpha=decay)
