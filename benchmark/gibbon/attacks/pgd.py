r"""Projected gradient descent.

.. math::
    x^{t+1} = \Pi_{x + S}\left(x^t + \alpha \, u(\nabla_x L(\theta, x^t, y))\right)

with u the steepest direction in the norm: the sign for L∞, the unit vector for L2.

Source: A. Madry, A. Makelov, L. Schmidt, D. Tsipras and A. Vladu, "Towards deep learning models
resistant to adversarial attacks", ICLR 2018, section 2.1, https://arxiv.org/abs/1706.06083.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from pydantic.dataclasses import dataclass
from torch import Tensor

from gibbon.attacks.base import STRICT, Attack, Count, PositiveLength, SearchMethod
from gibbon.attacks.toolkit.ascent_loop import Ascent, KeptIterate, State, projected_step
from gibbon.attacks.toolkit.objectives import Loss, untargeted
from gibbon.attacks.toolkit.projections import region
from gibbon.core.rng import ExampleStreams
from gibbon.core.threat import Norm, ThreatModel
from gibbon.models.classifier import Classifier

# The default path is 2.5 times epsilon long, enough to cross the ball from any point and return,
# as in the paper's CIFAR-10 challenge (10 steps of 2/255 for 8/255).
PATH_LENGTH = 2.5


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PGD(Attack):
    """Takes projected steps along the gradient from a random point, in one or more runs.

    Args:
        steps: gradient steps of one run.
        restarts: runs from different random points.  Each yields one candidate, except with
            ``"first-success"``: then a misclassified example takes no part in later runs.
        step_size: length of one step in the units of the input; 2.5 epsilon / steps if None.
        random_start: start at a uniform point of the ball, else at the input.
        loss: ``"cross-entropy"`` (the loss the model was trained with, in its exact form) or
            ``"margin"`` (Carlini and Wagner 2017: the best wrong class against the true one).
        keep: the iterate that is returned (`gibbon.attacks.toolkit.ascent_loop`).
    """

    norms: ClassVar[tuple[Norm, ...]] = (Norm.LINF, Norm.L2)
    search_method: ClassVar[SearchMethod] = SearchMethod.ITERATIVE

    steps: Count = 40
    restarts: Count = 1
    step_size: PositiveLength | None = None
    random_start: bool = True
    loss: Loss = "cross-entropy"
    keep: KeptIterate = "last"

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
        step = self.step_size or PATH_LENGTH * threat.radius / self.steps
        objective = untargeted(self.loss, labels, classifier.outputs)
        random = streams if self.random_start else None
        centre = State(inputs, region(inputs, threat=threat), objective, streams=random)
        ascent = Ascent(projected_step(step), self.steps, self.keep)
        return ascent.run(classifier, centre, restarts=self.restarts)
