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

from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from gibbon.attacks.base import STRICT, Attack, Length
from gibbon.attacks.toolkit.ascent_loop import Keep, State, climbs
from gibbon.attacks.toolkit.objectives import CrossEntropy, Margin, Objective
from gibbon.attacks.toolkit.projections import region
from gibbon.core.rng import ExampleStreams
from gibbon.core.threat import Norm, ThreatModel
from gibbon.models.classifier import Classifier

# Without a step size the path is 2.5 times epsilon long: far enough to cross the ball from
# anywhere and to turn back, as in the paper's CIFAR-10 challenge (2/255 x 10 steps for 8/255).
PATH_LENGTH = 2.5


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PGD(Attack):
    """Steps along the gradient and projects back, from a random point, several times over.

    Args:
        steps: gradient steps of one run.
        restarts: runs from different random points; each yields one candidate, but with
            ``"first-success"``, where an example that is misled takes part in no more of them.
        step_size: length of one step in the units of the input; 2.5 epsilon / steps if None.
        random_start: start at a uniform point of the ball rather than at the input.
        loss: ``"cross-entropy"`` (the loss the model was trained with, in its exact form) or
            ``"margin"`` (Carlini and Wagner 2017: the best wrong class against the true one).
        keep: which iterate is returned (`gibbon.attacks.toolkit.ascent_loop`).
    """

    norms: ClassVar[tuple[Norm, ...]] = (Norm.LINF, Norm.L2)

    steps: Annotated[int, Field(ge=1)] = 40
    restarts: Annotated[int, Field(ge=1)] = 1
    step_size: Annotated[Length, Field(gt=0)] | None = None
    random_start: bool = True
    loss: Literal["cross-entropy", "margin"] = "cross-entropy"
    keep: Keep = "last"

    def propose(
        self,
        classifier: Classifier,
        inputs: Tensor,
        *,
        labels: Tensor,
        threat: ThreatModel,
        streams: ExampleStreams,
    ) -> Iterator[Tensor]:
        """Yields one candidate a restart, or one in all with ``"first-success"``."""
        goal: Objective = CrossEntropy(labels, classifier.outputs)
        if self.loss == "margin":
            goal = Margin(labels)
        step = self.step_size
        if step is None:
            step = PATH_LENGTH * threat.radius / self.steps

        def update(state: State, gradient: Tensor) -> State:
            ahead = state.points.add(state.allowed.unit(gradient), alpha=step)
            return state.moved(state.allowed.project(ahead))

        centre = State.forgetful(inputs, allowed=region(inputs, threat=threat), goal=goal)
        return climbs(
            classifier,
            centre,
            update=update,
            steps=self.steps,
            keep=self.keep,
            restarts=self.restarts,
            streams=streams if self.random_start else None,
        )
