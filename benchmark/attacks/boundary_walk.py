r"""Algorithm 1 of the fast adaptive boundary attack, which FAB and its targeted form share.

With :math:`\delta^{(i)}` the shortest move from the iterate, and :math:`\delta_\mathrm{orig}` that
from the input, to the linearised boundary inside the box,

.. math::
    \alpha = \min\left\{\frac{\|\delta^{(i)}\|_p}{\|\delta^{(i)}\|_p + \|\delta_\mathrm{orig}\|_p},
    \alpha_\max\right\}, \qquad
    x^{(i+1)} = \mathrm{proj}_C\left((1 - \alpha)(x^{(i)} + \eta \, \delta^{(i)})
    + \alpha (x_\mathrm{orig} + \eta \, \delta_\mathrm{orig})\right),

and :math:`(1 - \beta) x_\mathrm{orig} + \beta x^{(i+1)}` after every point that is misclassified.

Source: F. Croce and M. Hein, "Minimally distorted adversarial examples with a fast adaptive
boundary attack", ICML 2020, https://arxiv.org/abs/1907.02044.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmark.attacks.boundaries import nearest_boundary, to_hyperplane
from benchmark.attacks.minimal import Aim, Nearest
from benchmark.attacks.projections import like
from benchmark.classifier import Classifier
from benchmark.metrics.distances import distances
from benchmark.rng import ExampleStreams
from benchmark.threat import Bounds, Norm

SEARCH_STEPS = 3  # of the search along a line at the end, as in the paper
# The authors' radii for random restarts, in a box of width 1.
RADII = {Norm.LINF: 0.3, Norm.L2: 1.0, Norm.L1: 5.0}


@dataclass(frozen=True)
class Walk:
    """How to walk: the parameters of algorithm 1, and the model and box to walk in."""

    classifier: Classifier
    bounds: Bounds | None
    steps: int
    alpha_max: float
    eta: float
    beta: float

    def run(
        self, nearest: Nearest, start: Tensor, *, rows: Tensor, labels: Tensor, rivals: Tensor
    ) -> None:
        """Walks from ``start`` and offers every misclassified point to ``nearest``.

        Two forward passes a step, and a backward pass for each column of ``rivals``.

        Args:
            nearest: what was found so far, for all examples.
            start: shape (M, *input_shape).
            rows: int64, shape (M,): positions of the examples that walk.
            labels: int64, shape (M,).
            rivals: int64, shape (M, R): the classes whose boundaries are looked at.
        """
        norm, inputs, aim = nearest.norm, nearest.inputs[rows], Aim(labels)
        points = start
        for _ in range(self.steps):
            here = nearest_boundary(
                self.classifier, points, labels=labels, rivals=rivals, norm=norm
            )
            there = here.seen_from(inputs, points)
            step = to_hyperplane(points, here, norm=norm, bounds=self.bounds)
            step_orig = to_hyperplane(inputs, there, norm=norm, bounds=self.bounds)
            alpha = like(_bias(step, step_orig, norm=norm, most=self.alpha_max), points)
            points = torch.lerp(
                points.add(step, alpha=self.eta), inputs.add(step_orig, alpha=self.eta), alpha
            )
            if self.bounds is not None:
                points.clamp_(self.bounds.low, self.bounds.high)
            with torch.no_grad():
                reached = aim.reached(self.classifier(points))
            nearest.offer(points, reached, rows=rows)
            backward = torch.lerp(inputs, points, self.beta)
            points = torch.where(like(reached, points), backward, points)

    def starts(
        self, nearest: Nearest, *, rows: Tensor, restarts: int, streams: ExampleStreams
    ) -> Iterator[Tensor]:
        """Yields where each run starts: the inputs, then random points, each (M, *input_shape).

        These lie half as far from the input as what was found, or half the norm's radius.
        """
        inputs, norm = nearest.inputs[rows], nearest.norm
        yield inputs
        for restart in range(1, restarts):
            drawn = streams.take(rows).child(restart)
            shape = inputs.shape[1:]
            noise = drawn.normal(shape)
            if norm is Norm.LINF:
                noise = drawn.uniform(shape).mul_(2.0).sub_(1.0)
            size = distances(noise, torch.zeros_like(noise), norm=norm)
            width = 1.0 if self.bounds is None else self.bounds.width
            reach = nearest.distances[rows].clamp(max=RADII[norm] * width) / 2
            points = inputs + noise * like(reach / size, noise)
            if self.bounds is not None:
                points.clamp_(self.bounds.low, self.bounds.high)
            yield points

    def search(self, nearest: Nearest, *, labels: Tensor) -> None:
        """Moves what was found towards the inputs, as far as it stays misclassified.

        The margin is taken for linear on the line between a right and a wrong point, which is
        cut where it would just count; five forward passes.
        """
        rows = (torch.isfinite(nearest.distances) & (nearest.distances > 0)).nonzero().flatten()
        if not len(rows):
            return
        aim = Aim(labels[rows])

        def excess(points: Tensor) -> Tensor:
            with torch.no_grad():
                outputs = self.classifier(points)
            nearest.offer(points, aim.reached(outputs), rows=rows)
            return aim.margin(outputs) - 2 * aim.required(outputs)

        right, wrong = nearest.inputs[rows], nearest.points[rows]
        below, above = excess(right), excess(wrong)
        for _ in range(SEARCH_STEPS):
            share = (below / (below - above)).nan_to_num(nan=1.0).clamp(0.0, 1.0)
            points = torch.lerp(right, wrong, like(share, right))
            value = excess(points)
            crossed = value > 0
            right = torch.where(like(crossed, points), right, points)
            below = torch.where(crossed, below, value)
            wrong = torch.where(like(crossed, points), points, wrong)
            above = torch.where(crossed, value, above)


def _bias(step: Tensor, step_orig: Tensor, *, norm: Norm, most: float) -> Tensor:
    """Returns alpha, shape (N,); 0 where there is no boundary to go to."""
    nowhere = torch.zeros_like(step)
    size = distances(step, nowhere, norm=norm)
    total = size + distances(step_orig, nowhere, norm=norm)
    return torch.where(total > 0, size / total, 0.0).clamp(max=most)
