"""The fast adaptive boundary attack, untargeted.

Each step goes to the nearest linearised boundary among those to all other classes (equation 7); see
`gibbon.attacks.toolkit.fab_search` for the algorithm.

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
from gibbon.attacks.toolkit.fab_search import FABSearch, FABTargets
from gibbon.attacks.toolkit.linear_boundary import rivals_of
from gibbon.core.rng import ExampleStreams
from gibbon.core.threat import Bounds, Norm
from gibbon.models.classifier import Classifier


@dataclass(frozen=True, kw_only=True, config=STRICT)
class FAB(MinimalNormAttack):
    """Moves along the decision boundary towards its point nearest to the input.

    Each step costs K - 1 backward passes with K classes: use `fab-t` if there are many.  Examples
    that are misclassified already are left out.  An example whose gradients are all zero stays at
    its input and counts as not found.

    Args:
        steps: steps of one run.
        restarts: number of runs; the first starts at the input, others at random points near it.
        alpha_max: the largest share of the step that starts from the input.
        eta: the factor by which steps overshoot the boundary.
        beta: the share of a perturbation that is left after a step back.
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
        """Yields the one candidate, the nearest point over all runs."""
        search = FABSearch(
            classifier, norm, bounds, self.steps, self.restarts, self.alpha_max, self.eta, self.beta
        )
        with torch.no_grad():
            outputs = classifier(inputs)
        targets = [FABTargets(rivals_of(outputs, labels), streams)]
        yield search.nearest_points(inputs, labels, outputs, targets)
