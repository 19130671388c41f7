r"""The fast adaptive boundary attack, untargeted, and its algorithm 1, shared with `fab-t`.

With :math:`\delta^{(i)}` the shortest move from the iterate, and :math:`\delta_\mathrm{orig}` that
from the input, to the linearised boundary inside the box,

.. math::
    \alpha = \min\left\{\frac{\|\delta^{(i)}\|_p}{\|\delta^{(i)}\|_p + \|\delta_\mathrm{orig}\|_p},
    \alpha_\max\right\}, \qquad
    x^{(i+1)} = \mathrm{proj}_C\left((1 - \alpha)(x^{(i)} + \eta \, \delta^{(i)})
    + \alpha (x_\mathrm{orig} + \eta \, \delta_\mathrm{orig})\right),

and :math:`(1 - \beta) x_\mathrm{orig} + \beta x^{(i+1)}` after every misclassified point.

The untargeted attack goes to the nearest of the boundaries to all other classes (equation 7).

Source: F. Croce and M. Hein, "Minimally distorted adversarial examples with a fast adaptive
boundary attack", ICML 2020, https://arxiv.org/abs/1907.02044.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass as plain
from dataclasses import replace
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from gibbon.attacks.base import STRICT
from gibbon.attacks.minimal import MinimalNormAttack
from gibbon.attacks.toolkit.example_rows import ExampleRows
from gibbon.attacks.toolkit.linear_boundary import nearest_boundary, rivals_of, to_hyperplane
from gibbon.attacks.toolkit.minimal_search import Criterion, Nearest
from gibbon.attacks.toolkit.parallel_restarts import next_group, rows_leaving
from gibbon.attacks.toolkit.projections import choose
from gibbon.core.rng import ExampleStreams
from gibbon.core.threat import Bounds, Norm
from gibbon.metrics.distances import clip_, distances, like
from gibbon.models.classifier import Classifier

FINAL_SEARCH_STEPS = 3  # along a line, as in the paper

# The authors' radii for random restarts, in a box of width 1.
RADII = {Norm.LINF: 0.3, Norm.L2: 1.0, Norm.L1: 5.0}


@plain(frozen=True)
class FABTargets(ExampleRows):
    """The classes whose boundaries one run approaches, and its random numbers.

    Args:
        rivals: int64, shape (N, R): classes other than the true one.
        streams: random numbers, one stream an example.
    """

    rivals: Tensor
    streams: ExampleStreams


class BoundaryWalk(MinimalNormAttack):
    """Interface of the untargeted and the targeted attack, which approach different boundaries."""

    norms: ClassVar[tuple[Norm, ...]] = (Norm.LINF, Norm.L2, Norm.L1)

    steps: int
    restarts: int
    alpha_max: float
    eta: float
    beta: float
    enough: float = -math.inf  # an example leaves the search once a point this near is found

    @abstractmethod
    def targets(
        self, outputs: Tensor, labels: Tensor, streams: ExampleStreams
    ) -> Iterator[FABTargets]:
        """Yields the targets of each run, given the outputs for the inputs, shape (N, K)."""

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
        """Yields the one candidate, the nearest point over all targets and runs."""
        with torch.no_grad():
            outputs = classifier(inputs)
        targets = self.targets(outputs, labels, streams)
        search = _Search(self, classifier, norm, bounds)
        yield search.nearest_points(inputs, labels, outputs, targets)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class FAB(BoundaryWalk):
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

    steps: Annotated[int, Field(ge=1)] = 100
    restarts: Annotated[int, Field(ge=1)] = 1
    alpha_max: Annotated[float, Field(ge=0, le=1)] = 0.1
    eta: Annotated[float, Field(ge=1)] = 1.05
    beta: Annotated[float, Field(ge=0, le=1)] = 0.9

    def targets(
        self, outputs: Tensor, labels: Tensor, streams: ExampleStreams
    ) -> Iterator[FABTargets]:
        """Yields all other classes, for one run."""
        yield FABTargets(rivals_of(outputs, labels), streams)


@plain(frozen=True)
class _Search:
    """Algorithm 1 on a model, in a norm and a box."""

    attack: BoundaryWalk
    classifier: Classifier
    norm: Norm
    bounds: Bounds | None

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
                unsolved &= away > self.attack.enough
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
        for restart in range(self.attack.restarts):
            here = batch.take(rows)
            points = here.inputs
            if restart > 0:
                points = self._near(nearest, rows, here.targets.streams.child(restart))
            path = _Path(points, rows, here)
            for _ in range(self.attack.steps):
                path, misclassified = self._step(path)
                nearest.offer(path.points, misclassified, rows=path.rows)
                done = nearest.distances[path.rows] <= self.attack.enough
                path = path.stepped_back(misclassified, beta=self.attack.beta)
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
        alpha = like(_alpha(moves, norm=self.norm, most=self.attack.alpha_max), points)
        step, step_orig = moves.chunk(2)
        points = torch.lerp(
            points.add(step, alpha=self.attack.eta),
            inputs.add(step_orig, alpha=self.attack.eta),
            alpha,
        )
        points = clip_(points, self.bounds)
        return replace(path, points=points), Criterion(labels).met_at(self.classifier, points)

    def _near(self, nearest: Nearest, rows: Tensor, streams: ExampleStreams) -> Tensor:
        """Returns random points at half the distance found so far, or half the norm's radius."""
        inputs = nearest.inputs[rows]
        noise = streams.normal(inputs.shape[1:])
        if self.norm is Norm.LINF:
            noise = streams.uniform(inputs.shape[1:]).mul_(2.0).sub_(1.0)
        size = distances(noise, torch.zeros_like(noise), norm=self.norm)
        width = 1.0 if self.bounds is None else self.bounds.width
        reach = nearest.distances[rows].clamp(max=RADII[self.norm] * width) / 2
        return clip_(inputs + noise * like(reach / size, noise), self.bounds)

    def _final_search(self, nearest: Nearest, *, labels: Tensor) -> None:
        """Moves the points found towards the inputs, as far as they stay misclassified.

        The margin is taken to be linear between a correctly classified and a misclassified point,
        and the line is cut at the smallest margin that counts; five forward passes.  Points within
        ``enough`` stay.
        """
        away = nearest.distances
        rows = (torch.isfinite(away) & (away > max(self.attack.enough, 0.0))).nonzero().flatten()
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


@plain(frozen=True)
class _Batch(ExampleRows):
    """Inputs, labels and targets, one row for each example and target."""

    inputs: Tensor
    labels: Tensor
    targets: FABTargets


@plain(frozen=True)
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
