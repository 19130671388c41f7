r"""Box-constrained L-BFGS, the first published attack.

Section 4.1: minimise

.. math::
    \|r\|_2^2 + c \; \mathrm{loss}_f(x + r, l) \qquad \text{subject to } x + r \in [0, 1]^m,

and search for the smallest constant c whose minimiser is classified as l.  (The paper weights the
distance; this form weights the loss and squares the distance, as restated by Carlini and Wagner
2017, section III-A.)

Source: C. Szegedy, W. Zaremba, I. Sutskever, J. Bruna, D. Erhan, I. Goodfellow and R. Fergus,
"Intriguing properties of neural networks", ICLR 2014, https://arxiv.org/abs/1312.6199.  The
optimiser is scipy's L-BFGS-B (Byrd, Lu, Nocedal and Zhu 1995).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from pydantic.dataclasses import dataclass
from scipy.optimize import Bounds as Box
from scipy.optimize import minimize
from torch import Tensor
from torch.nn import functional

from gibbon.attacks.base import STRICT, Count
from gibbon.attacks.minimal import NearestSearch
from gibbon.attacks.toolkit.minimal_search import Constants, Criterion, Nearest, finite
from gibbon.attacks.toolkit.targets import Target
from gibbon.core.rng import ExampleStreams
from gibbon.core.threat import Bounds, Norm
from gibbon.metrics.distances import clip_
from gibbon.models.classifier import Classifier


@dataclass(frozen=True, kw_only=True, config=STRICT)
class LBFGS(NearestSearch):
    """Minimises the distance plus c times the loss inside the box, for several constants c.

    Each example is a separate problem: one forward and one backward pass for each evaluation, in
    batches of one, so that results do not depend on the batch.  It is slow.

    Args:
        iterations: of L-BFGS for each constant.
        searches: number of constants: tenfold until one succeeds, then by bisection.
        init_constant: the first constant.
        target: the target class.  The paper has targeted attacks only; ``"none"`` minimises the
            softplus of the true class's margin over the best other, which equals the paper's loss
            for two classes.
    """

    norms: ClassVar[tuple[Norm, ...]] = (Norm.L2,)
    departures: ClassVar[Mapping[str, str]] = {
        "optimum": "its default target is a random class, which may be far away"
    }

    iterations: Count = 100
    searches: Count = 9
    init_constant: Annotated[float, Field(gt=0)] = 1e-2
    target: Target = "random"

    def search(
        self, classifier: Classifier, nearest: Nearest, *, labels: Tensor, streams: ExampleStreams
    ) -> None:
        """Offers the clean inputs, then the minimiser for each constant."""
        inputs, bounds = nearest.inputs, nearest.bounds
        criterion = Criterion.choose(self.target, classifier, inputs, labels, streams)
        nearest.offer(inputs, criterion.met_at(classifier, inputs))
        for row in nearest.missing.unsqueeze(1):
            constants = Constants(torch.full((1,), self.init_constant, device=inputs.device))
            own = criterion.take(row)
            for _ in range(self.searches):
                weight = float(constants.values)
                with classifier.on_rows(row):
                    found = self._minimise(
                        classifier, inputs[row], criterion=own, constant=weight, bounds=bounds
                    )
                    met = own.met_at(classifier, found)
                nearest.offer(found, met, rows=row)
                constants.update(met)

    def _minimise(
        self,
        classifier: Classifier,
        inputs: Tensor,
        *,
        criterion: Criterion,
        constant: float,
        bounds: Bounds | None,
    ) -> Tensor:
        """Returns the minimiser for one example, shape (1, *input_shape)."""

        def objective(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
            leaf = _tensor(flat, inputs).requires_grad_()
            with torch.enable_grad():
                loss = _loss(classifier, classifier(leaf), criterion).sum()
            gradient = classifier.pull_back(loss, leaf, torch.ones_like(loss))
            change = flat - start
            slope = finite(gradient).double().flatten().cpu().numpy()
            value = float(change @ change) + constant * float(loss.detach())
            return value, 2 * change + constant * slope

        start = inputs.double().flatten().cpu().numpy()
        box = None if bounds is None else Box(bounds.low, bounds.high)
        solved = minimize(
            objective,
            start,
            jac=True,
            method="L-BFGS-B",
            bounds=box,
            options={"maxiter": self.iterations},
        )
        return clip_(_tensor(solved.x, inputs), bounds)


def _loss(classifier: Classifier, outputs: Tensor, criterion: Criterion) -> Tensor:
    """Returns the loss, shape (N,)."""
    if criterion.targeted:
        return classifier.outputs.exact_loss(outputs, criterion.classes)
    return functional.softplus(-criterion.margin(outputs))


def _tensor(flat: NDArray[np.float64], like: Tensor) -> Tensor:
    return torch.from_numpy(flat).to(device=like.device, dtype=like.dtype).view_as(like)
