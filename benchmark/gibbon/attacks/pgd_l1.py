r"""Projected gradient descent in L1, with sparse steps.

.. math::
    e_i = \mathrm{sign}(g_i) \, 1[|g_i| \ge P_q(|g|)], \qquad
    x^{t+1} = \Pi_{x + S}\left(x^t + \alpha \, e / \lVert e \rVert_1\right)

with g the gradient at :math:`x^t`, and :math:`P_q` the q-th percentile of its coordinates' sizes.
The steepest direction in L1 moves a single coordinate, which is slow; the sign of all of them, as
in L∞, spends the budget on coordinates that matter little.

Two things are as in F. Croce and M. Hein, "Mind the box: l1-APGD for sparse adversarial attacks on
image classifiers", ICML 2021: S is the ball cut with the box, and the projection is the exact one.

Source: F. Tramèr and D. Boneh, "Adversarial training and robustness for multiple perturbations",
NeurIPS 2019, section 4.1 and algorithm 1, https://arxiv.org/abs/1904.13000.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from gibbon.attacks.base import STRICT, Attack, Length
from gibbon.attacks.toolkit.ascent_loop import Keep, State, climbs
from gibbon.attacks.toolkit.objectives import CrossEntropy, Margin, Objective
from gibbon.attacks.toolkit.projections import region, sparse_unit
from gibbon.core.rng import ExampleStreams
from gibbon.core.threat import Bounds, Norm, ThreatModel
from gibbon.models.classifier import Classifier

# As in PGD: without a step size the path is 2.5 times epsilon long.
PATH_LENGTH = 2.5


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PGDL1(Attack):
    """Steps of equal length in the largest coordinates of the gradient, and projects back.

    Args:
        steps: gradient steps of one run.
        restarts: runs from different random points; each yields one candidate, but with
            ``"first-success"``, where an example that is misled takes part in no more of them.
        step_size: length of one step in the units of the input; 2.5 epsilon / steps if None.
        random_start: start at a uniform point of the ball, projected, rather than at the input.
        sparsity: the share of coordinates that a step leaves alone, q: 0.99 moves one of a hundred.
            Coordinates that stand at the box, with a gradient that points out of it, do not count.
        loss: ``"cross-entropy"``, in its exact form, or ``"margin"``.
        keep: which iterate is returned (`gibbon.attacks.toolkit.ascent_loop`).
    """

    norms: ClassVar[tuple[Norm, ...]] = (Norm.L1,)

    steps: Annotated[int, Field(ge=1)] = 40
    restarts: Annotated[int, Field(ge=1)] = 1
    step_size: Annotated[Length, Field(gt=0)] | None = None
    random_start: bool = True
    sparsity: Annotated[float, Field(ge=0, lt=1)] = 0.99
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
        step = (
            PATH_LENGTH * threat.radius / self.steps if self.step_size is None else self.step_size
        )

        def update(state: State, gradient: Tensor) -> State:
            free = _inward(gradient, state.points, bounds=threat.bounds)
            ahead = state.points.add(sparse_unit(free, share=1 - self.sparsity), alpha=step)
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


def _inward(gradient: Tensor, points: Tensor, *, bounds: Bounds | None) -> Tensor:
    """Returns the gradient without the coordinates that the box holds where they are."""
    if bounds is None:
        return gradient
    held = (points >= bounds.high) & (gradient > 0) | (points <= bounds.low) & (gradient < 0)
    return torch.where(held, 0.0, gradient)
