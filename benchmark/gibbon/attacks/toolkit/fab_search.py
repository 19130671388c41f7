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

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gibbon.attacks.toolkit.linear_boundary import nearest_boundary, to_hyperplane
from gibbon.attacks.toolkit.minimal_search import Aim, Nearest
from gibbon.attacks.toolkit.parallel_restarts import leaving
from gibbon.attacks.toolkit.step_schedules import Rows
from gibbon.core.rng import ExampleStreams
from gibbon.core.threat import Bounds, Norm
from gibbon.metrics.distances import distances, like
from gibbon.models.classifier import Classifier

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

    def runs(
        self,
        inputs: Tensor,
        *,
        labels: Tensor,
        rivals: Tensor,
        norm: Norm,
        restarts: int,
        streams: ExampleStreams,
        examples: int,
        enough: float = -math.inf,
    ) -> Nearest:
        """Returns the nearest misclassified points of all runs: one from the input, then restarts.

        Two forward passes a step, and a backward pass for each column of ``rivals``.  A row with a
        point within ``enough`` leaves, and so do the later tries of its example.

        Args:
            inputs: shape (M, *input_shape): tries abreast (`gibbon.attacks.toolkit.parallel_restarts`).
            labels: int64, shape (M,).
            rivals: int64, shape (M, R): the classes whose boundaries are looked at.
            norm: what is near.
            restarts: how many runs.
            streams: random numbers, one stream a row.
            examples: how many examples each try has.
            enough: how near is near enough, in the units of the input.
        """
        nearest = Nearest(inputs, norm=norm)
        rows = torch.arange(len(inputs), device=inputs.device)
        for restart in range(restarts):
            points = inputs[rows]
            if restart > 0:
                points = self._near(nearest, rows=rows, streams=streams.take(rows).child(restart))
            path = _Path(points, inputs[rows], rows, labels[rows], rivals[rows])
            for _ in range(self.steps):
                path, reached = self._step(path, norm=norm)
                nearest.offer(path.points, reached, rows=path.rows)
                done = nearest.distances[path.rows] <= enough
                path = path.stepped_back(reached, beta=self.beta)
                if bool(done.any()):
                    leave = leaving(path.rows, done, examples=examples)
                    path = path.take(torch.nonzero(~leave).squeeze(1))
                    if not len(path.rows):
                        return nearest
            rows = path.rows
        return nearest

    def _step(self, path: _Path, *, norm: Norm) -> tuple[_Path, Tensor]:
        """Returns the path one step on, and where that is misclassified."""
        points, inputs = path.points, path.inputs
        here = nearest_boundary(
            self.classifier, points, labels=path.labels, rivals=path.rivals, norm=norm
        )
        there = here.seen_from(inputs, points)
        moves = to_hyperplane(
            torch.cat([points, inputs]), here.then(there), norm=norm, bounds=self.bounds
        )
        alpha = like(_bias(moves, norm=norm, most=self.alpha_max), points)
        step, step_orig = moves.chunk(2)
        points = torch.lerp(
            points.add(step, alpha=self.eta), inputs.add(step_orig, alpha=self.eta), alpha
        )
        if self.bounds is not None:
            points.clamp_(self.bounds.low, self.bounds.high)
        with torch.no_grad():
            reached = Aim(path.labels).reached(self.classifier(points))
        return replace(path, points=points), reached

    def _near(self, nearest: Nearest, *, rows: Tensor, streams: ExampleStreams) -> Tensor:
        """Returns random points half as far away as what was found, or half the norm's radius."""
        inputs, norm = nearest.inputs[rows], nearest.norm
        noise = streams.normal(inputs.shape[1:])
        if norm is Norm.LINF:
            noise = streams.uniform(inputs.shape[1:]).mul_(2.0).sub_(1.0)
        size = distances(noise, torch.zeros_like(noise), norm=norm)
        width = 1.0 if self.bounds is None else self.bounds.width
        reach = nearest.distances[rows].clamp(max=RADII[norm] * width) / 2
        points = inputs + noise * like(reach / size, noise)
        return points if self.bounds is None else points.clamp_(self.bounds.low, self.bounds.high)

    def search(self, nearest: Nearest, *, labels: Tensor, beyond: float = 0.0) -> None:
        """Moves what was found towards the inputs, as far as it stays misclassified.

        The margin is taken for linear on the line between a right and a wrong point, which is
        cut where it would just count; five forward passes.  What is within ``beyond`` stays.
        """
        away = nearest.distances
        rows = (torch.isfinite(away) & (away > beyond)).nonzero().flatten()
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


@dataclass(frozen=True)
class _Path(Rows):
    """Where the rows stand that still walk: positions among all, inputs, labels and rivals."""

    points: Tensor
    inputs: Tensor
    rows: Tensor
    labels: Tensor
    rivals: Tensor

    def stepped_back(self, reached: Tensor, *, beta: float) -> _Path:
        """Returns the path with the points that are misclassified moved towards their inputs."""
        share = torch.where(reached, beta, torch.ones_like(reached, dtype=self.points.dtype))
        return replace(self, points=torch.lerp(self.inputs, self.points, like(share, self.points)))


def _bias(moves: Tensor, *, norm: Norm, most: float) -> Tensor:
    """Returns alpha, shape (N,), for N steps and N steps from the input; 0 where both are none."""
    size, size_orig = distances(moves, moves.new_zeros(()), norm=norm).chunk(2)
    total = size + size_orig
    return torch.where(total > 0, size / total, 0.0).clamp(max=most)
