r"""Algorithm 1 of the fast adaptive boundary attack, which FAB and its targeted form share.

With :math:`\delta^{(i)}` the shortest move from the iterate, and :math:`\delta_\mathrm{orig}` that
from the input, to the linearised boundary inside the box,

.. math::
    \alpha = \min\left\{\frac{\|\delta^{(i)}\|_p}{\|\delta^{(i)}\|_p + \|\delta_\mathrm{orig}\|_p},
    \alpha_\max\right\}, \qquad
    x^{(i+1)} = \mathrm{proj}_C\left((1 - \alpha)(x^{(i)} + \eta \, \delta^{(i)})
    + \alpha (x_\mathrm{orig} + \eta \, \delta_\mathrm{orig})\right),

and :math:`(1 - \beta) x_\mathrm{orig} + \beta x^{(i+1)}` after every misclassified point.

Source: F. Croce and M. Hein, "Minimally distorted adversarial examples with a fast adaptive
boundary attack", ICML 2020, https://arxiv.org/abs/1907.02044.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gibbon.attacks.toolkit.example_rows import ExampleRows
from gibbon.attacks.toolkit.linear_boundary import nearest_boundary, to_hyperplane
from gibbon.attacks.toolkit.minimal_search import Criterion, Nearest
from gibbon.attacks.toolkit.parallel_restarts import next_group, rows_leaving
from gibbon.attacks.toolkit.projections import choose
from gibbon.core.rng import ExampleStreams
from gibbon.core.threat import Bounds, Norm
from gibbon.metrics.distances import distances, like
from gibbon.models.classifier import Classifier

FINAL_SEARCH_STEPS = 3  # along a line, as in the paper

# The authors' radii for random restarts, in a box of width 1.
RADII = {Norm.LINF: 0.3, Norm.L2: 1.0, Norm.L1: 5.0}


@dataclass(frozen=True)
class FABTargets(ExampleRows):
    """The classes whose boundaries one run approaches, and its random numbers.

    Args:
        rivals: int64, shape (N, R): classes other than the true one.
        streams: random numbers, one stream an example.
    """

    rivals: Tensor
    streams: ExampleStreams


@dataclass(frozen=True)
class FABSearch:
    """The parameters of algorithm 1, with the model, the norm and the box.

    Args:
        classifier: the model under attack.
        norm: the norm of distances.
        bounds: the box, or None.
        steps: steps of one run.
        restarts: runs for each of the targets; the first starts at the input.
        alpha_max: the largest alpha.
        eta: the factor by which steps overshoot the boundary.
        beta: the share of a perturbation that is left after a step back.
        enough: an example leaves the search once a point within this distance is found.
    """

    classifier: Classifier
    norm: Norm
    bounds: Bounds | None
    steps: int
    restarts: int
    alpha_max: float
    eta: float
    beta: float
    enough: float = -math.inf

    def nearest_points(
        self, inputs: Tensor, labels: Tensor, outputs: Tensor, targets: Iterable[FABTargets]
    ) -> Tensor:
        """Returns the nearest misclassified point of all targets and runs, else the input.

        Shape (N, *input_shape).  Several targets go into one batch if few examples are left.

        Args:
            inputs: shape (N, *input_shape).
            labels: int64, shape (N,): the true classes.
            outputs: the model's outputs for the inputs, shape (N, K).
            targets: the targets of each run, for all N examples.
        """
        nearest = Nearest(inputs, norm=self.norm)
        nearest.offer(inputs, Criterion(labels).met(outputs))
        left, remaining = nearest.missing, iter(targets)
        while len(left) and (group := next_group(remaining, self.classifier, examples=len(left))):
            count = len(group)
            joined = FABTargets.concatenated([each.take(left) for each in group])
            batch = _Batch(torch.cat([inputs[left]] * count), labels[left].repeat(count), joined)
            found = self._run(batch, examples=len(left))
            unsolved = torch.ones_like(left, dtype=torch.bool)  # no point near enough yet
            for points, away in zip(
                found.points.chunk(count), found.distances.chunk(count), strict=True
            ):
                nearest.offer(points, unsolved & torch.isfinite(away), rows=left)
                unsolved &= away > self.enough
            left = left[unsolved]
        self._final_search(nearest, labels=labels)
        return nearest.points

    def _run(self, batch: _Batch, *, examples: int) -> Nearest:
        """Returns the nearest misclassified points of all restarts.

        Two forward passes a step, and a backward pass for each column of rivals.  A row with a
        point within ``enough`` leaves the batch, and so do the later targets of its example.
        """
        nearest = Nearest(batch.inputs, norm=self.norm)
        rows = torch.arange(len(batch.inputs), device=batch.inputs.device)
        for restart in range(self.restarts):
            here = batch.take(rows)
            points = here.inputs
            if restart > 0:
                points = self._near(nearest, rows, here.targets.streams.child(restart))
            path = _Path(points, rows, here)
            for _ in range(self.steps):
                path, misclassified = self._step(path)
                nearest.offer(path.points, misclassified, rows=path.rows)
                done = nearest.distances[path.rows] <= self.enough
                path = path.stepped_back(misclassified, beta=self.beta)
                if bool(done.any()):
                    leave = rows_leaving(path.rows, done, examples=examples)
                    path = path.take(torch.nonzero(~leave).squeeze(1))
                    if not len(path.rows):
                        return nearest
            rows = path.rows
        return nearest

    def _step(self, path: _Path) -> tuple[_Path, Tensor]:
        """Returns the path after one step, and which of its points are misclassified."""
        points, inputs, labels = path.points, path.batch.inputs, path.batch.labels
        boundary = nearest_boundary(
            self.classifier, points, labels=labels, rivals=path.batch.targets.rivals, norm=self.norm
        )
        moves = to_hyperplane(
            torch.cat([points, inputs]),
            boundary.followed_by(boundary.seen_from(inputs, points)),
            norm=self.norm,
            bounds=self.bounds,
        )
        alpha = like(_alpha(moves, norm=self.norm, most=self.alpha_max), points)
        step, step_orig = moves.chunk(2)
        points = torch.lerp(
            points.add(step, alpha=self.eta), inputs.add(step_orig, alpha=self.eta), alpha
        )
        if self.bounds is not None:
            points.clamp_(self.bounds.low, self.bounds.high)
        with torch.no_grad():
            misclassified = Criterion(labels).met(self.classifier(points))
        return replace(path, points=points), misclassified

    def _near(self, nearest: Nearest, rows: Tensor, streams: ExampleStreams) -> Tensor:
        """Returns random points at half the distance found so far, or half the norm's radius."""
        inputs = nearest.inputs[rows]
        noise = streams.normal(inputs.shape[1:])
        if self.norm is Norm.LINF:
            noise = streams.uniform(inputs.shape[1:]).mul_(2.0).sub_(1.0)
        size = distances(noise, torch.zeros_like(noise), norm=self.norm)
        width = 1.0 if self.bounds is None else self.bounds.width
        reach = nearest.distances[rows].clamp(max=RADII[self.norm] * width) / 2
        points = inputs + noise * like(reach / size, noise)
        return points if self.bounds is None else points.clamp_(self.bounds.low, self.bounds.high)

    def _final_search(self, nearest: Nearest, *, labels: Tensor) -> None:
        """Moves the points found towards the inputs, as far as they stay misclassified.

        The margin is taken to be linear between a correctly classified and a misclassified point,
        and the line is cut at the smallest margin that counts; five forward passes.  Points within
        ``enough`` stay.
        """
        away = nearest.distances
        rows = (torch.isfinite(away) & (away > max(self.enough, 0.0))).nonzero().flatten()
        if not len(rows):
            return
        criterion = Criterion(labels[rows])

        def excess(points: Tensor) -> Tensor:
            with torch.no_grad():
                outputs = self.classifier(points)
            nearest.offer(points, criterion.met(outputs), rows=rows)
            return criterion.margin(outputs) - 2 * criterion.required(outputs)

        right, wrong = nearest.inputs[rows], nearest.points[rows]
        below, above = excess(right), excess(wrong)
        for _ in range(FINAL_SEARCH_STEPS):
            share = (below / (below - above)).nan_to_num(nan=1.0).clamp(0.0, 1.0)
            points = torch.lerp(right, wrong, like(share, right))
            value = excess(points)
            crossed = value > 0
            right, wrong = choose(crossed, right, points), choose(crossed, points, wrong)
            below, above = torch.where(crossed, below, value), torch.where(crossed, value, above)


@dataclass(frozen=True)
class _Batch(ExampleRows):
    """Inputs, labels and targets, one row for each example and target."""

    inputs: Tensor
    labels: Tensor
    targets: FABTargets


@dataclass(frozen=True)
class _Path(ExampleRows):
    """The iterates of the rows that still take part; ``rows`` says which these are."""

    points: Tensor
    rows: Tensor
    batch: _Batch

    def stepped_back(self, misclassified: Tensor, *, beta: float) -> _Path:
        """Returns the path with the misclassified points moved towards their inputs."""
        ones = torch.ones_like(misclassified, dtype=self.points.dtype)
        share = like(torch.where(misclassified, beta, ones), self.points)
        return replace(self, points=torch.lerp(self.batch.inputs, self.points, share))


def _alpha(moves: Tensor, *, norm: Norm, most: float) -> Tensor:
    """Returns alpha, shape (N,), for N steps and N steps from the input; 0 if both are zero."""
    size, size_orig = distances(moves, moves.new_zeros(()), norm=norm).chunk(2)
    total = size + size_orig
    return torch.where(total > 0, size / total, 0.0).clamp(max=most)
