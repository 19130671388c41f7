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
from collections.abc import Iterator
from dataclasses import dataclass as plain
from dataclasses import replace
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from gibbon.attacks.base import STRICT, Count
from gibbon.attacks.minimal import NearestSearch
from gibbon.attacks.toolkit.example_rows import ExampleRows
from gibbon.attacks.toolkit.linear_boundary import (
    Boundary,
    nearest_boundary,
    rivals_of,
    to_hyperplane,
)
from gibbon.attacks.toolkit.minimal_search import Criterion, Nearest
from gibbon.attacks.toolkit.parallel_restarts import next_group, rows_leaving
from gibbon.attacks.toolkit.projections import choose
from gibbon.core.rng import ExampleStreams
from gibbon.core.threat import Norm
from gibbon.metrics.distances import clip_, distances, like
from gibbon.models.classifier import Classifier

FINAL_SEARCH_STEPS = 3  # along a line, as in the paper

# The authors' radii for random restarts, in a box of width 1.
RADII = {Norm.LINF: 0.3, Norm.L2: 1.0, Norm.L1: 5.0}


@plain(frozen=True)
class FABRun(ExampleRows):
    """A run of the attack: the classes whose boundaries it approaches, and its random numbers.

    Args:
        rivals: int64, shape (N, R): classes other than the true one.
        streams: random numbers, one stream an example.
    """

    rivals: Tensor
    streams: ExampleStreams


class BoundaryWalk(NearestSearch):
    """Interface of the untargeted and the targeted attack, which approach different boundaries."""

    norms: ClassVar[tuple[Norm, ...]] = (Norm.LINF, Norm.L2, Norm.L1)

    steps: int
    restarts: int
    alpha_max: float
    eta: float
    beta: float
    enough: float = -math.inf  # an example leaves the search once a point this near is found

    @abstractmethod
    def runs(self, outputs: Tensor, labels: Tensor, streams: ExampleStreams) -> Iterator[FABRun]:
        """Yields the runs, given the outputs for the inputs, shape (N, K)."""

    def search(
        self, classifier: Classifier, nearest: Nearest, *, labels: Tensor, streams: ExampleStreams
    ) -> None:
        """Offers the clean inputs, then the points of all targets and runs."""
        with torch.no_grad():
            outputs = classifier(nearest.inputs)
        runs = self.runs(outputs, labels, streams)
        nearest.offer(nearest.inputs, Criterion(labels).met(outputs))
        _Search(self, classifier, nearest).run(labels, runs)


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

    steps: Count = 100
    restarts: Count = 1
    alpha_max: Annotated[float, Field(ge=0, le=1)] = 0.1
    eta: Annotated[float, Field(ge=1)] = 1.05
    beta: Annotated[float, Field(ge=0, le=1)] = 0.9

    def runs(self, outputs: Tensor, labels: Tensor, streams: ExampleStreams) -> Iterator[FABRun]:
        """Yields all other classes, for one run."""
        yield FABRun(rivals_of(outputs, labels), streams)


@plain(frozen=True)
class _Search:
    """Algorithm 1 on a model; ``nearest`` keeps the points, and holds the inputs."""

    attack: BoundaryWalk
    classifier: Classifier
    nearest: Nearest

    def run(self, labels: Tensor, runs: Iterator[FABRun]) -> None:
        """Offers the misclassified points nearest to the inputs, of all targets and runs.

        Several targets go into one batch if few examples are left.

        Args:
            labels: int64, shape (N,): the true classes.
            runs: the runs, for all N examples.
        """
        nearest, inputs = self.nearest, self.nearest.inputs
        left = nearest.missing
        while len(left) and (group := next_group(runs, self.classifier, examples=len(left))):
            count = len(group)
            joined = FABRun.concatenated([each.take(left) for each in group])
            start = torch.cat([inputs[left]] * count)
            rows = torch.arange(len(start), device=start.device)
            path = _Path(start, rows, start, labels[left].repeat(count), joined)
            with self.classifier.run_on(left.repeat(count)):
                found = self._run(path, examples=len(left))
            unsolved = torch.ones_like(left, dtype=torch.bool)  # no point near enough yet
            for points, away in zip(
                found.points.chunk(count), found.distances.chunk(count), strict=True
            ):
                nearest.offer(points, unsolved & torch.isfinite(away), rows=left)
                unsolved &= away > self.attack.enough
            left = left[unsolved]
        self._final_search(labels)

    def _run(self, path: _Path, *, examples: int) -> Nearest:
        """Returns the nearest misclassified points of all restarts.

        Two forward passes a step, and a backward pass for each column of rivals.  A row with a
        point within ``enough`` leaves the batch, and so do the later targets of its example.
        """
        nearest = Nearest(path.inputs, norm=self.nearest.norm)
        for restart in range(self.attack.restarts):
            points = path.inputs
            if restart > 0:
                points = self._near(nearest, path.rows, path.run.streams.child(restart))
            path = replace(path, points=points)
            for _ in range(self.attack.steps):
                with self.classifier.on_rows(path.rows):
                    path, misclassified = self._step(path)
                nearest.offer(path.points, misclassified, rows=path.rows)
                done = nearest.distances[path.rows] <= self.attack.enough
                path = path.stepped_back(misclassified, beta=self.attack.beta)
                if bool(done.any()):
                    leave = rows_leaving(path.rows, done, examples=examples)
                    path = path.take(torch.nonzero(~leave).squeeze(1))
                    if not len(path.rows):
                        return nearest
        return nearest

    def _step(self, path: _Path) -> tuple[_Path, Tensor]:
        """Returns the path after one step, and which of its points are misclassified."""
        points, inputs, labels = path.points, path.inputs, path.labels
        rivals, norm, bounds = path.run.rivals, self.nearest.norm, self.nearest.bounds
        here = nearest_boundary(self.classifier, points, labels=labels, rivals=rivals, norm=norm)
        both = Boundary.concatenated([here, here.seen_from(inputs, points)])
        moves = to_hyperplane(torch.cat([points, inputs]), both, norm=norm, bounds=bounds)
        alpha = like(_alpha(moves, norm=norm, most=self.attack.alpha_max), points)
        step, step_orig = moves.chunk(2)
        points = torch.lerp(
            points.add(step, alpha=self.attack.eta),
            inputs.add(step_orig, alpha=self.attack.eta),
            alpha,
        )
        points = clip_(points, bounds)
        return replace(path, points=points), Criterion(labels).met_at(self.classifier, points)

    def _near(self, nearest: Nearest, rows: Tensor, streams: ExampleStreams) -> Tensor:
        """Returns random points at half the distance found so far, or half the norm's radius."""
        inputs, norm, bounds = nearest.inputs[rows], self.nearest.norm, self.nearest.bounds
        noise = streams.normal(inputs.shape[1:])
        if norm is Norm.LINF:
            noise = streams.uniform(inputs.shape[1:]).mul_(2.0).sub_(1.0)
        size = distances(noise, torch.zeros_like(noise), norm=norm)
        width = 1.0 if bounds is None else bounds.width
        reach = nearest.distances[rows].clamp(max=RADII[norm] * width) / 2
        return clip_(inputs + noise * like(reach / size, noise), bounds)

    def _final_search(self, labels: Tensor) -> None:
        """Moves the points found towards the inputs, as far as they stay misclassified.

        The margin is taken to be linear between a correctly classified and a misclassified point,
        and the line is cut at the smallest margin that counts; five forward passes.  Points within
        ``enough`` stay.
        """
        nearest, away = self.nearest, self.nearest.distances
        rows = (torch.isfinite(away) & (away > max(self.attack.enough, 0.0))).nonzero().flatten()
        if not len(rows):
            return
        criterion = Criterion(labels[rows])

        def excess(points: Tensor) -> Tensor:
            with torch.no_grad(), self.classifier.on_rows(rows):
                outputs = self.classifier(points)
            nearest.offer(points, criterion.met(outputs), rows=rows)
            excess = criterion.margin(outputs) - 2 * criterion.required(outputs)
            return excess.to(points.dtype)

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
class _Path(ExampleRows):
    """The iterates of the rows that still take part, one for each example and target.

    ``rows`` are their positions in the batch at the start.
    """

    points: Tensor
    rows: Tensor
    inputs: Tensor
    labels: Tensor
    run: FABRun

    def stepped_back(self, misclassified: Tensor, *, beta: float) -> _Path:
        """Returns the path with the misclassified points moved towards their inputs."""
        ones = torch.ones_like(misclassified, dtype=self.points.dtype)
        share = like(torch.where(misclassified, beta, ones), self.points)
        return replace(self, points=torch.lerp(self.inputs, self.points, share))


def _alpha(moves: Tensor, *, norm: Norm, most: float) -> Tensor:
    """Returns alpha, shape (N,), for N steps and N steps from the input; 0 if both are zero."""
    size, size_orig = distances(moves, moves.new_zeros(()), norm=norm).chunk(2)
    total = size + size_orig
    return torch.where(total > 0, size / total, 0.0).clamp(max=most)
