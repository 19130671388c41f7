r"""How APGD chooses its steps: what they are, and when they get shorter.

`Halving`, for L∞ and L2, is algorithm 1 of the first paper.  With :math:`\eta = 2 \epsilon` at
first, u the steepest direction in the norm and :math:`\alpha = 0.75`,

.. math::
    z^{(k+1)} &= P_S(x^{(k)} + \eta \, u(\nabla f(x^{(k)}))) \\
    x^{(k+1)} &= P_S(x^{(k)} + \alpha (z^{(k+1)} - x^{(k)}) + (1 - \alpha)(x^{(k)} - x^{(k-1)}))

but :math:`x^{(1)} = z^{(1)}`.  At checkpoint :math:`w_j`, once :math:`x^{(w_j)}` is known, the step
size is halved, and the search goes on from the best point so far, where

1. fewer than :math:`\rho (w_j - w_{j-1})` steps since :math:`w_{j-1}` raised f, or
2. the step size was not halved at :math:`w_{j-1}`, and the best value has not risen since then.

Checkpoints are :math:`w_j = \lceil p_j N \rceil` with :math:`p_0 = 0`, :math:`p_1 = 0.22` and
:math:`p_{j+1} = p_j + \max(p_j - p_{j-1} - 0.03, 0.06)`.

`Sparsening`, for L1, is that of the second: steps without momentum, of length
:math:`\eta = \epsilon`, in the k largest coordinates of the gradient, k = d / 5 at first.  At a
checkpoint, every :math:`\lceil 0.04 N \rceil` steps, k becomes 2/3 of the number of coordinates
that the best point has changed.  Where that number fell by more than 5 %, the step size is epsilon
again and the search goes on from the best point; elsewhere the step size is divided by 1.5, down to
epsilon / 10.

Sources: F. Croce and M. Hein, "Reliable evaluation of adversarial robustness with an ensemble of
diverse parameter-free attacks", ICML 2020, section 3 and algorithm 1,
https://arxiv.org/abs/2003.01690; F. Croce and M. Hein, "Mind the box: l1-APGD for sparse
adversarial attacks on image classifiers", ICML 2021, section 3, https://arxiv.org/abs/2103.01208.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Self

import torch
from torch import Tensor

from gibbon.attacks.toolkit.projections import Region, sparse_units
from gibbon.metrics.distances import like

MOMENTUM = 0.75  # alpha
FIRST_STEP = 2.0  # in units of epsilon
FIRST_CHECKPOINT, GAP_SHRINKS, SMALLEST_GAP = 22, 3, 6  # percent of the steps

FIRST_SHARE = 0.2  # of the coordinates that a step in L1 moves
DIVISOR = 1.5  # of the number of changed coordinates, and of the step size
FELL = 0.95
SMALLEST_STEP = 0.1  # in L1, in units of epsilon
CHECK_EVERY = 4  # percent of the steps, in L1


@dataclass(frozen=True)
class Rows:
    """Tensors with one row an example."""

    def take(self, index: Tensor) -> Self:
        """Returns the rows of some of the examples: ``index`` is a mask or positions."""
        names = [field.name for field in dataclasses.fields(self)]
        return replace(self, **{name: getattr(self, name)[index] for name in names})


@dataclass(frozen=True)
class Trail(Rows):
    """Where a search stands and the best that it has seen, for N examples.

    Args:
        points: the point of this step, shape (N, *input_shape).
        previous: that of the step before.
        gradient: the objective's gradient at ``points``, up to a positive factor an example.
        value: the objective at ``points``, shape (N,).
        best_points: the point of the highest objective so far.
        best_gradient: the gradient there.
        best_value: the objective there, shape (N,).
    """

    points: Tensor
    previous: Tensor
    gradient: Tensor
    value: Tensor
    best_points: Tensor
    best_gradient: Tensor
    best_value: Tensor

    @classmethod
    def begin(cls, points: Tensor, *, gradient: Tensor, value: Tensor) -> Trail:
        """Returns the trail of a search that has seen its start alone."""
        return cls(points, points, gradient, value, points, gradient, value)

    def then(self, points: Tensor, *, gradient: Tensor, value: Tensor) -> Trail:
        """Returns the trail with one more step; an equal value is no better."""
        higher = value > self.best_value
        return Trail(
            points,
            self.points,
            gradient,
            value,
            choose(higher, points, self.best_points),
            choose(higher, gradient, self.best_gradient),
            torch.where(higher, value, self.best_value),
        )

    def back_to_best(self, back: Tensor) -> Trail:
        """Returns the trail with the best points as those of this step where ``back`` is true."""
        return replace(
            self,
            points=choose(back, self.best_points, self.points),
            gradient=choose(back, self.best_gradient, self.gradient),
            value=torch.where(back, self.best_value, self.value),
        )


class Pace(Rows, ABC):
    """The steps of a search and when they change."""

    @abstractmethod
    def ahead(self, trail: Trail, allowed: Region, *, first: bool) -> Tensor:
        """Returns the next points."""

    @abstractmethod
    def noted(self, rose: Tensor) -> Self:
        """Returns the pace after a step that raised the objective, or not, bool, shape (N,)."""

    @abstractmethod
    def checked(self, trail: Trail, allowed: Region, *, enough: float) -> tuple[Self, Tensor]:
        """Returns the pace after a checkpoint, and where to go back to the best point.

        ``enough`` steps since the last checkpoint should have raised the objective.
        """


@dataclass(frozen=True)
class Halving(Pace):
    """Halves the step size where the objective does not rise.

    Args:
        step: length of a step in units of epsilon, shape (N,).
        rises: steps since the last checkpoint that raised the objective, shape (N,).
        halved: whether the last checkpoint halved the step size, bool, shape (N,).
        last_best: the best value at the last checkpoint, shape (N,).
    """

    step: Tensor
    rises: Tensor
    halved: Tensor
    last_best: Tensor

    @classmethod
    def begin(cls, trail: Trail) -> Halving:
        """Returns the pace of the first step."""
        value = trail.value
        return cls(
            torch.full_like(value, FIRST_STEP),
            torch.zeros_like(value),
            torch.zeros_like(value, dtype=torch.bool),
            value,
        )

    def ahead(self, trail: Trail, allowed: Region, *, first: bool) -> Tensor:
        """Returns a step along the gradient, averaged with the last change of place."""
        points, lengths = trail.points, like(self.step * allowed.radius, trail.points)
        towards = allowed.project(allowed.unit(trail.gradient).mul_(lengths).add_(points))
        if first:
            return towards
        moved = towards.sub_(points).mul_(MOMENTUM).add_(points)
        return allowed.project(moved.add_(points - trail.previous, alpha=1 - MOMENTUM))

    def noted(self, rose: Tensor) -> Halving:
        """Counts the steps that raised the objective."""
        return replace(self, rises=self.rises + rose)

    def checked(self, trail: Trail, allowed: Region, *, enough: float) -> tuple[Halving, Tensor]:
        """Halves the step size under condition 1 or 2."""
        stalled = ~self.halved & (trail.best_value == self.last_best)
        halve = (self.rises < enough) | stalled
        step = torch.where(halve, self.step / 2, self.step)
        return Halving(step, torch.zeros_like(self.rises), halve, trail.best_value), halve


@dataclass(frozen=True)
class Sparsening(Pace):
    """Moves fewer coordinates as the best point changes fewer.

    Args:
        step: length of a step in units of epsilon, shape (N,).
        share: of the coordinates that a step moves, shape (N,).
        changed: coordinates that the best point had changed at the last checkpoint, shape (N,).
    """

    step: Tensor
    share: Tensor
    changed: Tensor

    @classmethod
    def begin(cls, trail: Trail, allowed: Region, *, resumed: bool) -> Sparsening:
        """Returns the pace of the first step, from a random point or from a resumed one."""
        changed = _changed(trail.points, allowed)
        every = trail.points[0].numel()
        share = changed / (DIVISOR * every)
        if not resumed:
            share, changed = torch.full_like(share, FIRST_SHARE), torch.full_like(share, every)
        return cls(torch.ones_like(share), share, changed)

    def ahead(self, trail: Trail, allowed: Region, *, first: bool) -> Tensor:
        """Returns a sparse step along the gradient."""
        lengths = like(self.step * allowed.radius, trail.points)
        unit = sparse_units(trail.gradient, shares=self.share)
        return allowed.project(unit.mul_(lengths).add_(trail.points))

    def noted(self, rose: Tensor) -> Sparsening:
        """Whether the objective rose does not count here."""
        return self

    def checked(self, trail: Trail, allowed: Region, *, enough: float) -> tuple[Sparsening, Tensor]:
        """Follows the number of coordinates that the best point has changed."""
        changed = _changed(trail.best_points, allowed)
        fell = changed < FELL * self.changed
        shorter = (self.step / DIVISOR).clamp(min=SMALLEST_STEP)
        share = changed / (DIVISOR * trail.points[0].numel())
        return Sparsening(torch.where(fell, 1.0, shorter), share, changed), fell


def halving_checkpoints(steps: int) -> dict[int, int]:
    """Returns the numbers of the steps after which `Halving` looks back, each with how far back.

    >>> list(halving_checkpoints(100))
    [22, 41, 57, 70, 80, 87, 93, 99]
    """
    percents = [0, FIRST_CHECKPOINT]
    while percents[-1] < 100:
        gap = max(percents[-1] - percents[-2] - GAP_SHRINKS, SMALLEST_GAP)
        percents.append(percents[-1] + gap)
    # Whole numbers: in floats 0.41 * 100 is above 41.
    numbers = sorted({-(-percent * steps // 100) for percent in percents if percent < 100})
    return {number: number - before for before, number in pairwise(numbers)}


def sparsening_checkpoints(steps: int) -> dict[int, int]:
    """Returns the numbers of the steps after which `Sparsening` looks back, each with how far back.

    >>> list(sparsening_checkpoints(40))[:4]
    [2, 4, 6, 8]
    """
    every = -(-CHECK_EVERY * steps // 100)
    return dict.fromkeys(range(every, steps + 1, every), every)


def choose(mask: Tensor, points: Tensor, others: Tensor) -> Tensor:
    """Returns the points of the examples where ``mask`` (bool, shape (N,)) is true, else others."""
    return torch.where(like(mask, points), points, others)


def _changed(points: Tensor, allowed: Region) -> Tensor:
    return (points != allowed.inputs).flatten(1).sum(1).to(points.dtype)
