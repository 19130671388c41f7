r"""Projected gradient descent in L1, with sparse steps.

.. math::
    e_i = \mathrm{sign}(g_i) \, 1[|g_i| \ge P_q(|g|)], \qquad
    x^{t+1} = \Pi_{x + S}\left(x^t + \alpha \, e / \lVert e \rVert_1\right)

with g the gradient at :math:`x^t`, and :math:`P_q` the q-th percentile of its coordinates' sizes.
The steepest direction in L1 moves a single coordinate, which is slow; the sign of all coordinates,
as in L∞, spends the budget on unimportant ones.

Two details follow F. Croce and M. Hein, "Mind the box: l1-APGD for sparse adversarial attacks on
image classifiers", ICML 2021: S is the intersection of ball and box, with the exact projection.

Source: F. Tramèr and D. Boneh, "Adversarial training and robustness for multiple perturbations",
NeurIPS 2019, section 4.1 and algorithm 1, https://arxiv.org/abs/1904.13000.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from gibbon.attacks.base import STRICT, Attack, Count, PositiveLength, SearchMethod
from gibbon.attacks.pgd import PATH_LENGTH
from gibbon.attacks.toolkit.ascent_loop import Ascent, KeptIterate, State, projected_step
from gibbon.attacks.toolkit.objectives import Loss, untargeted
from gibbon.attacks.toolkit.projections import inward, region, sparse_unit
from gibbon.core.rng import ExampleStreams
from gibbon.core.threat import Norm, ThreatModel
from gibbon.models.classifier import Classifier


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PGDL1(Attack):
    """Takes steps of equal length in the largest coordinates of the gradient, and projects back.

    Args:
        steps: gradient steps of one run.
        restarts: runs from different random points.  Each yields one candidate, except with
            ``"first-success"``: then a misclassified example takes no part in later runs.
        step_size: length of one step in the units of the input; 2.5 epsilon / steps if None.
        random_start: start at a uniform point of the ball, projected, else at the input.
        sparsity: the share of coordinates that a step does not move, q: 0.99 moves one of 100.
            Coordinates at the edge of the box, with a gradient that points out of it, do not count.
        loss: ``"cross-entropy"``, in its exact form, or ``"margin"``.
        keep: the iterate that is returned (`gibbon.attacks.toolkit.ascent_loop`).
    """

    norms: ClassVar[tuple[Norm, ...]] = (Norm.L1,)
    search_method: ClassVar[SearchMethod] = SearchMethod.ITERATIVE

    steps: Count = 40
    restarts: Count = 1
    step_size: PositiveLength | None = None
    random_start: bool = True
    sparsity: Annotated[float, Field(ge=0, lt=1)] = 0.99
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
        ascent = Ascent(projected_step(step, direction=self._direction), self.steps, self.keep)
        return ascent.run(classifier, centre, restarts=self.restarts)

    def _direction(self, state: State, gradient: Tensor) -> Tensor:
        """Returns e divided by its L1 norm."""
        free = inward(gradient, state.points, bounds=state.allowed.bounds)
        return sparse_unit(free, share=1 - self.sparsity)
