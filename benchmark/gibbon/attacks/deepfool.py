r"""DeepFool: steps to the nearest boundary of the linearised classifier.

Algorithm 2 with, for L2,

.. math::
    \hat l = \arg\min_{k \ne y} \frac{|f'_k|}{\|w'_k\|_2}, \qquad
    r_i = \frac{|f'_{\hat l}|}{\|w'_{\hat l}\|_2^2} \, w'_{\hat l},

where :math:`f'_k = f_k(x_i) - f_y(x_i)` and :math:`w'_k = \nabla f_k(x_i) - \nabla f_y(x_i)`
(equations 8 and 9); for L∞ the norm is the 1-norm and the step is along the sign (equations 10 and
11).

Source: S.-M. Moosavi-Dezfooli, A. Fawzi and P. Frossard, "DeepFool: a simple and accurate method to
fool deep neural networks", CVPR 2016, https://arxiv.org/abs/1511.04599.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from gibbon.attacks.base import STRICT, Count
from gibbon.attacks.minimal import NearestSearch
from gibbon.attacks.toolkit.linear_boundary import nearest_boundary, rivals_of, to_hyperplane
from gibbon.attacks.toolkit.minimal_search import Criterion, Nearest
from gibbon.attacks.toolkit.projections import TINY
from gibbon.core.rng import ExampleStreams
from gibbon.core.threat import Norm
from gibbon.metrics.distances import clip_, distances, like
from gibbon.models.classifier import Classifier

# The authors' code lengthens each step by this, in the units of the input: without it a point
# limited by the box approaches the boundary and never crosses it.
FURTHER = 1e-4


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DeepFool(NearestSearch):
    """Moves to the nearest linearised boundary, step by step, until the class changes.

    Each step costs a backward pass for each rival class and two forward passes; examples whose
    class has changed leave the batch before the gradients are taken.  Points are clipped to the
    box, if there is one, after each step; the paper has no box.  An example whose gradients are all
    zero stays at its input and counts as not found.

    Args:
        steps: largest number of steps.
        overshoot: the perturbation is multiplied by 1 + overshoot, to cross the boundary.
        classes: number of classes considered, the likeliest at the input, including the true one;
            all if None.
    """

    norms: ClassVar[tuple[Norm, ...]] = (Norm.L2, Norm.LINF)

    steps: Count = 50
    overshoot: Annotated[float, Field(ge=0)] = 0.02
    classes: Annotated[int, Field(ge=2)] | None = 10

    def search(
        self, classifier: Classifier, nearest: Nearest, *, labels: Tensor, streams: ExampleStreams
    ) -> None:
        """Offers the clean inputs, then the point of each step."""
        inputs, norm, criterion = nearest.inputs, nearest.norm, Criterion(labels)
        with torch.no_grad():
            outputs = classifier(inputs)
        nearest.offer(inputs, criterion.met(outputs))
        rivals = rivals_of(outputs, labels, count=self.classes and self.classes - 1)
        points, total = inputs.clone(), torch.zeros_like(inputs)
        for _ in range(self.steps):
            rows = nearest.missing
            if not len(rows):
                break
            here = points[rows]
            with classifier.on_rows(rows):
                boundary = nearest_boundary(
                    classifier, here, labels=labels[rows], rivals=rivals[rows], norm=norm
                )
            step = to_hyperplane(here, boundary, norm=norm, bounds=None)
            size = distances(step, torch.zeros_like(step), norm=norm)
            total[rows] += step * like(1 + FURTHER / size.clamp(min=TINY), step)
            here = clip_(inputs[rows].add(total[rows], alpha=1 + self.overshoot), nearest.bounds)
            with classifier.on_rows(rows):
                met = criterion.take(rows).met_at(classifier, here)
            nearest.offer(here, met, rows=rows)
            points[rows] = here
