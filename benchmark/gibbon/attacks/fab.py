"""The fast adaptive boundary attack, untargeted.

At each step the nearest linearised boundary among those to all other classes is approached
(equation 7); see `gibbon.attacks.toolkit.fab_search` for the algorithm.

Source: F. Croce and M. Hein, "Minimally distorted adversarial examples with a fast adaptive
boundary attack", ICML 2020, https://arxiv.org/abs/1907.02044.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from gibbon.attacks.base import STRICT
from gibbon.attacks.minimal import MinimalNormAttack
from gibbon.attacks.toolkit.fab_search import Walk
from gibbon.attacks.toolkit.linear_boundary import rivals_of
from gibbon.attacks.toolkit.minimal_search import Aim, Nearest
from gibbon.core.rng import ExampleStreams
from gibbon.core.threat import Bounds, Norm
from gibbon.models.classifier import Classifier


@dataclass(frozen=True, kw_only=True, config=STRICT)
class FAB(MinimalNormAttack):
    """Walks along the boundary towards the point of it that is nearest to the input.

    Each step costs K - 1 backward passes with K classes: with many of them take `fab-t`.  Examples
    that are misclassified already are not walked with.  One whose gradients are all zero
    stays where it is and counts as not found.

    Args:
        steps: steps of one run.
        restarts: runs; the first starts at the input, the others at random points near it.
        alpha_max: the largest share of the step that is taken from the input.
        eta: by which factor steps overshoot the boundary.
        beta: what is left of a perturbation after a step back.
    """

    norms: ClassVar[tuple[Norm, ...]] = (Norm.LINF, Norm.L2, Norm.L1)

    steps: Annotated[int, Field(ge=1)] = 100
    restarts: Annotated[int, Field(ge=1)] = 1
    alpha_max: Annotated[float, Field(ge=0, le=1)] = 0.1
    eta: Annotated[float, Field(ge=1)] = 1.05
    beta: Annotated[float, Field(ge=0, le=1)] = 0.9

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
        """Yields the one try, the nearest over all runs."""
        nearest = Nearest(inputs, norm=norm)
        with torch.no_grad():
            outputs = classifier(inputs)
        nearest.offer(inputs, Aim(labels).reached(outputs))
        rows, rivals = nearest.missing, rivals_of(outputs, labels)
        walk = Walk(classifier, bounds, self.steps, self.alpha_max, self.eta, self.beta)
        if len(rows):
            found = walk.runs(
                inputs[rows], labels=labels[rows], rivals=rivals[rows], norm=norm,
                restarts=self.restarts, streams=streams.take(rows), examples=len(rows),
            )  # fmt: skip
            nearest.offer(found.points, torch.isfinite(found.distances), rows=rows)
        walk.search(nearest, labels=labels)
        yield nearest.points
