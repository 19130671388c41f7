r"""Algorithm 1 of APGD: projected gradient ascent that chooses its step sizes itself.

In L∞ and L2, with u the steepest direction in the norm, :math:`P_S` the projection onto the allowed
points, :math:`\eta = 2 \epsilon` at first and :math:`\alpha = 0.75`,

.. math::
    z^{(k+1)} &= P_S(x^{(k)} + \eta \, u(\nabla f(x^{(k)}))) \\
    x^{(k+1)} &= P_S(x^{(k)} + \alpha (z^{(k+1)} - x^{(k)}) + (1 - \alpha)(x^{(k)} - x^{(k-1)}))

and :math:`x^{(1)} = z^{(1)}`.  At checkpoint :math:`w_j` the step size is halved and the search
restarts from the best point so far if

1. fewer than :math:`\rho (w_j - w_{j-1})` steps since :math:`w_{j-1}` increased f, or
2. the step size was not halved at :math:`w_{j-1}`, and the best value has not increased since.

Checkpoints are :math:`w_j = \lceil p_j N \rceil` with :math:`p_0 = 0`, :math:`p_1 = 0.22` and
:math:`p_{j+1} = p_j + \max(p_j - p_{j-1} - 0.03, 0.06)`.

In L1 the steps have no momentum and length :math:`\eta = \epsilon`, in the k largest coordinates of
the gradient, k = d / 5 at first.  At a checkpoint, every :math:`\lceil 0.04 N \rceil` steps, k
becomes 2/3 of the number of coordinates that the best point has changed.  If that number fell by
more than 5 %, the step size is reset to epsilon and the search restarts from the best point;
otherwise the step size is divided by 1.5, down to epsilon / 10.  A run has three stages, in balls
of three, two and one epsilon, with 30 %, 30 % and 40 % of the steps, each from the projected best
point of the stage before.

Croce and Hein return the point of the highest objective, and count an example as misclassified if
any iterate was.  Here both are one point: the misclassified iterate of the highest objective, or
the iterate of the highest objective if none is misclassified.

Sources: F. Croce and M. Hein, "Reliable evaluation of adversarial robustness with an ensemble of
diverse parameter-free attacks", ICML 2020, section 3 and algorithm 1,
https://arxiv.org/abs/2003.01690; for L1, F. Croce and M. Hein, "Mind the box: l1-APGD for sparse
adversarial attacks on image classifiers", ICML 2021, sections 3 and 4,
https://arxiv.org/abs/2103.01208.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal, Self

import torch
from torch import Tensor

from gibbon.attacks.toolkit.example_rows import ExampleRows
from gibbon.attacks.toolkit.gradients import Gradients
from gibbon.attacks.toolkit.objectives import Objective
from gibbon.attacks.toolkit.parallel_restarts import next_group, rows_leaving
from gibbon.attacks.toolkit.projections import Region, choose, region, sparse_units
from gibbon.core.rng import ExampleStreams
from gibbon.core.threat import Epsilon, Norm, ThreatModel
from gibbon.metrics.distances import like
from gibbon.models.attacked_view import redraw
from gibbon.models.classifier import Classifier
from gibbon.models.outputs import margin

KeptPoint = Literal["best-loss", "first-success"]

MOMENTUM = 0.75  # alpha
FIRST_STEP = 2.0  # in units of epsilon
FIRST_CHECKPOINT, GAP_SHRINKS, SMALLEST_GAP = 22, 3, 6  # percent of the steps

RADII = ((3, 3), (2, 3))  # in L1, before the ball itself: units of epsilon, tenths of the steps
FIRST_SHARE = 0.2  # of the coordinates that a step in L1 moves
DIVISOR = 1.5  # of the number of changed coordinates, and of the step size
FELL = 0.95
SMALLEST_STEP = 0.1  # in L1, in units of epsilon
CHECK_EVERY = 4  # percent of the steps, in L1


@dataclass(frozen=True)
class Run(ExampleRows):
    """A run of algorithm 1 from a random point.

    Args:
        objective: the function f to maximise.
        streams: random numbers, one stream an example.
    """

    objective: Objective
    streams: ExampleStreams


@dataclass(frozen=True)
class APGDSearch:
    """Runs algorithm 1 several times, and keeps the best point of each example.

    Args:
        classifier: the model under attack.
        threat: the norm, the budget and the box.
        steps: gradient steps of one run, N.
        rho: share of the steps between checkpoints that must increase the objective (L∞ and L2).
        keep: ``"best-loss"``, or ``"first-success"`` to stop at the first misclassified point.
    """

    classifier: Classifier
    threat: ThreatModel
    steps: int
    rho: float
    keep: KeptPoint

    def best_points(self, inputs: Tensor, runs: Iterable[Run]) -> Tensor:
        """Returns the best point of all runs for each example, shape (N, *input_shape).

        Of several runs the point with the largest margin of a wrong class over the true one counts.
        A run costs ``steps + 1`` forward and ``steps`` backward passes (in L1 two forward passes
        more).  With ``"first-success"`` an example leaves the batch at its first misclassified
        point.  Several runs go into one batch if few examples are left.

        Args:
            inputs: shape (N, *input_shape).
            runs: the runs for all N examples, with objectives of one kind.

        Raises `OutputError` if a gradient is NaN or infinite.
        """
        gradients = Gradients(self.classifier)
        points = inputs.clone()
        margins = torch.full_like(inputs.flatten(1)[:, 0], -torch.inf)
        left = torch.arange(len(inputs), device=inputs.device)
        remaining = iter(runs)
        while len(left) and (group := next_group(remaining, self.classifier, examples=len(left))):
            joined = Run.concatenated([run.take(left) for run in group])
            batch = torch.cat([inputs[left]] * len(group))
            with self.classifier.run_on(left.repeat(len(group))):
                found = self._run(gradients, batch, joined, examples=len(left))
            unsolved = torch.ones_like(left, dtype=torch.bool)  # by the runs before this one
            for rows in torch.arange(len(batch), device=left.device).chunk(len(group)):
                better = unsolved & (found.margins[rows] > margins[left])
                points[left[better]] = found.points[rows[better]]
                margins[left[better]] = found.margins[rows[better]]
                unsolved &= ~found.stopped[rows]
            left = left[unsolved]
        gradients.check()
        return points

    def _run(self, gradients: Gradients, inputs: Tensor, run: Run, *, examples: int) -> _Found:
        """Returns the result of one run, or of several in one batch of ``examples`` rows each."""
        stages = self._stages()
        points = region(inputs, threat=stages[0].threat).random_point(run.streams)
        for stage in stages:
            found = self._ascend(gradients, inputs, points, run.objective, stage, examples=examples)
            points = found.best  # of a stage that is over, and may be overwritten
        return found

    def _stages(self) -> list[_Stage]:
        stop = self.keep == "first-success"
        if self.threat.norm is not Norm.L1:
            return [_Stage(self.threat, self.steps, stop=stop)]
        stages: list[_Stage] = []
        for factor, tenths in RADII:
            epsilon = Epsilon(
                factor * self.threat.epsilon.value, f"{factor} * {self.threat.epsilon}"
            )
            if steps := tenths * self.steps // 10:
                stages.append(
                    _Stage(replace(self.threat, epsilon=epsilon), steps, resumed=bool(stages))
                )
        rest = self.steps - sum(each.steps for each in stages)
        return [*stages, _Stage(self.threat, rest, resumed=bool(stages), stop=stop)]

    def _ascend(
        self,
        gradients: Gradients,
        inputs: Tensor,
        points: Tensor,
        objective: Objective,
        stage: _Stage,
        *,
        examples: int,
    ) -> _Found:
        """Runs algorithm 1 in one ball, from ``points`` projected onto it."""
        allowed = region(inputs, threat=stage.threat)
        points = allowed.project(points)
        found = _Found(points, examples=examples)
        redraw(self.classifier, 0)
        outputs, gradient = gradients.at(points, objective.ascent)
        value, lead = _scores(objective, outputs, points)
        none = torch.zeros_like(value)
        iterates = Iterates(
            points, points, gradient, value, points, gradient, value, points, value, lead, none
        )
        schedule: StepSchedule = StepHalving.start(iterates)
        checkpoints = halving_checkpoints(stage.steps)
        if self.threat.norm is Norm.L1:
            schedule = SparsitySchedule.start(iterates, allowed, resumed=stage.resumed)
            checkpoints = sparsity_checkpoints(stage.steps)
        rows = torch.arange(len(points), device=points.device)
        state = _SearchState(rows, allowed, objective, iterates, schedule)
        for step in range(1, stage.steps + 1):
            if stage.stop:
                state = found.collect_misclassified(state, outputs=outputs)
                if not len(state.rows):
                    return found
            points = state.schedule.next_points(state.iterates, state.allowed, first=step == 1)
            redraw(self.classifier, step)
            if step < stage.steps:
                outputs, gradient = gradients.at(points, state.objective.ascent, rows=state.rows)
            else:  # nothing follows the last gradient
                with torch.no_grad(), self.classifier.on_rows(state.rows):
                    outputs, gradient = self.classifier(points), state.iterates.gradient
            state = state.after_step(points, outputs, gradient)
            if step in checkpoints:
                state = state.after_checkpoint(enough=self.rho * checkpoints[step])
        if stage.stop:
            state = found.collect_misclassified(state, outputs=outputs)
        return found.collect(state)


@dataclass(frozen=True)
class _Stage:
    """A stage of a run: its ball and its steps, and whether a stage came before.

    ``stop`` says whether rows leave at their first misclassified point.
    """

    threat: ThreatModel
    steps: int
    resumed: bool = False
    stop: bool = False


@dataclass(frozen=True)
class Iterates(ExampleRows):
    """The iterate of the current step, the best so far, and the one to return.

    Args:
        points: the iterate, shape (N, *input_shape).
        previous: the iterate before.
        gradient: the objective's gradient at ``points``, up to a positive factor an example.
        value: the objective at ``points``, shape (N,).
        best_points: the iterate of the highest objective so far.
        best_gradient: the gradient there.
        best_value: the objective there, shape (N,).
        kept: the misclassified iterate of the highest objective, else the best.
        kept_value: the objective there, shape (N,).
        kept_margin: the margin of the best wrong class over the true one there, shape (N,).
        increases: steps since the last checkpoint that increased the objective, shape (N,).
    """

    points: Tensor
    previous: Tensor
    gradient: Tensor
    value: Tensor
    best_points: Tensor
    best_gradient: Tensor
    best_value: Tensor
    kept: Tensor
    kept_value: Tensor
    kept_margin: Tensor
    increases: Tensor

    def then(self, points: Tensor, gradient: Tensor, *, value: Tensor, lead: Tensor) -> Iterates:
        """Returns the iterates after one more step; an equal value is not better.

        ``lead`` is the margin of the best wrong class over the true one at ``points``.
        """
        higher = value > self.best_value
        wrong, kept_wrong = lead > 0, self.kept_margin > 0
        better = wrong & ~kept_wrong | (wrong == kept_wrong) & (value > self.kept_value)
        return Iterates(
            points=points,
            previous=self.points,
            gradient=gradient,
            value=value,
            best_points=choose(higher, points, self.best_points),
            best_gradient=choose(higher, gradient, self.best_gradient),
            best_value=torch.where(higher, value, self.best_value),
            kept=choose(better, points, self.kept),
            kept_value=torch.where(better, value, self.kept_value),
            kept_margin=torch.where(better, lead, self.kept_margin),
            increases=self.increases + (value > self.value),
        )

    def restarted(self, from_best: Tensor) -> Iterates:
        """Returns the iterates after a checkpoint: back at the best point, if ``from_best``."""
        return replace(
            self,
            points=choose(from_best, self.best_points, self.points),
            gradient=choose(from_best, self.best_gradient, self.gradient),
            value=torch.where(from_best, self.best_value, self.value),
            increases=torch.zeros_like(self.increases),
        )


@dataclass(frozen=True)
class StepSchedule(ExampleRows, ABC):
    """Chooses the steps of a run; changes them at checkpoints.

    Args:
        step: length of a step in units of epsilon, shape (N,).
    """

    step: Tensor

    @abstractmethod
    def next_points(self, iterates: Iterates, allowed: Region, *, first: bool) -> Tensor:
        """Returns the next iterate."""

    @abstractmethod
    def after_checkpoint(
        self, iterates: Iterates, allowed: Region, *, enough: float
    ) -> tuple[Self, Tensor]:
        """Returns the schedule after a checkpoint, and which rows restart from their best point.

        ``enough`` steps since the last checkpoint should have increased the objective.
        """


@dataclass(frozen=True)
class StepHalving(StepSchedule):
    """Halves the step size if the objective stops increasing: L∞ and L2.

    Args:
        halved: whether the last checkpoint halved the step size, bool, shape (N,).
        last_best: the best value at the last checkpoint, shape (N,).
    """

    halved: Tensor
    last_best: Tensor

    @classmethod
    def start(cls, iterates: Iterates) -> StepHalving:
        """Returns the schedule of the first step."""
        value = iterates.value
        return cls(
            torch.full_like(value, FIRST_STEP),
            torch.zeros_like(value, dtype=torch.bool),
            value,
        )

    def next_points(self, iterates: Iterates, allowed: Region, *, first: bool) -> Tensor:
        """Returns a step along the gradient, with momentum unless it is the first."""
        points, lengths = iterates.points, like(self.step * allowed.radius, iterates.points)
        ascended = allowed.project(allowed.unit(iterates.gradient).mul_(lengths).add_(points))
        if first:
            return ascended
        moved = ascended.sub_(points).mul_(MOMENTUM).add_(points)
        return allowed.project(moved.add_(points - iterates.previous, alpha=1 - MOMENTUM))

    def after_checkpoint(
        self, iterates: Iterates, allowed: Region, *, enough: float
    ) -> tuple[StepHalving, Tensor]:
        """Halves the step size under condition 1 or 2."""
        stalled = ~self.halved & (iterates.best_value == self.last_best)
        halve = (iterates.increases < enough) | stalled
        step = torch.where(halve, self.step / 2, self.step)
        return StepHalving(step, halve, iterates.best_value), halve


@dataclass(frozen=True)
class SparsitySchedule(StepSchedule):
    """Moves fewer coordinates as the best point changes fewer: L1.

    Args:
        share: of the coordinates that a step moves, shape (N,).
        changed: coordinates that the best point had changed at the last checkpoint, shape (N,).
    """

    share: Tensor
    changed: Tensor

    @classmethod
    def start(cls, iterates: Iterates, allowed: Region, *, resumed: bool) -> SparsitySchedule:
        """Returns the schedule of the first step, from a random point or from a stage before."""
        changed = _changed(iterates.points, allowed)
        every = iterates.points[0].numel()
        share = changed / (DIVISOR * every)
        if not resumed:
            share, changed = torch.full_like(share, FIRST_SHARE), torch.full_like(share, every)
        return cls(torch.ones_like(share), share, changed)

    def next_points(self, iterates: Iterates, allowed: Region, *, first: bool) -> Tensor:
        """Returns a sparse step along the gradient."""
        lengths = like(self.step * allowed.radius, iterates.points)
        unit = sparse_units(iterates.gradient, shares=self.share)
        return allowed.project(unit.mul_(lengths).add_(iterates.points))

    def after_checkpoint(
        self, iterates: Iterates, allowed: Region, *, enough: float
    ) -> tuple[SparsitySchedule, Tensor]:
        """Follows the number of coordinates that the best point has changed."""
        changed = _changed(iterates.best_points, allowed)
        fell = changed < FELL * self.changed
        shorter = (self.step / DIVISOR).clamp(min=SMALLEST_STEP)
        share = changed / (DIVISOR * iterates.points[0].numel())
        return SparsitySchedule(torch.where(fell, 1.0, shorter), share, changed), fell


def halving_checkpoints(steps: int) -> dict[int, int]:
    """Returns the checkpoints of `StepHalving`, each with the steps since the one before.

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


def sparsity_checkpoints(steps: int) -> dict[int, int]:
    """Returns the checkpoints of `SparsitySchedule`, each with the steps since the one before.

    >>> list(sparsity_checkpoints(40))[:4]
    [2, 4, 6, 8]
    """
    every = -(-CHECK_EVERY * steps // 100)
    return dict.fromkeys(range(every, steps + 1, every), every)


def _changed(points: Tensor, allowed: Region) -> Tensor:
    return (points != allowed.inputs).flatten(1).sum(1).to(points.dtype)


@dataclass(frozen=True)
class _SearchState(ExampleRows):
    """The state of algorithm 1 for the rows of a batch that still take part, ``rows``."""

    rows: Tensor
    allowed: Region
    objective: Objective
    iterates: Iterates
    schedule: StepSchedule

    def after_step(self, points: Tensor, outputs: Tensor, gradient: Tensor) -> _SearchState:
        value, lead = _scores(self.objective, outputs, points)
        iterates = self.iterates.then(points, gradient, value=value, lead=lead)
        return replace(self, iterates=iterates)

    def after_checkpoint(self, *, enough: float) -> _SearchState:
        schedule, restart = self.schedule.after_checkpoint(
            self.iterates, self.allowed, enough=enough
        )
        return replace(self, iterates=self.iterates.restarted(restart), schedule=schedule)


def _scores(objective: Objective, outputs: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the objective and the margin of outputs in the precision of the points."""
    value, lead = objective.value(outputs), margin(outputs, objective.labels)
    return value.to(points.dtype), lead.to(points.dtype)


class _Found:
    """The result of a stage, for the N rows of a batch of several runs.

    Args:
        points: the start, shape (N, *input_shape).
        examples: how many examples each run has.

    Attributes:
        points: the point to return, shape (N, *input_shape).
        margins: shape (N,): of the best wrong class over the true one, at these points.
        stopped: bool, shape (N,): whether the row left with a misclassified point.
        best: the point of the highest objective, of the rows that did not leave.
    """

    def __init__(self, points: Tensor, *, examples: int) -> None:
        self.examples = examples
        self.points = torch.empty_like(points)
        self.margins = torch.full_like(points.flatten(1)[:, 0], -torch.inf)
        self.stopped = torch.zeros_like(self.margins, dtype=torch.bool)
        self.best = points

    def collect_misclassified(self, state: _SearchState, *, outputs: Tensor) -> _SearchState:
        """Stores the rows that are misclassified; returns the state of the others."""
        done = state.objective.misclassified(outputs)
        if not bool(done.any()):
            return state
        leave = rows_leaving(state.rows, done, examples=self.examples)
        self.stopped[state.rows[done]] = True
        self.collect(state.take(done))
        return state.take(torch.nonzero(~leave).squeeze(1))

    def collect(self, state: _SearchState) -> _Found:
        """Stores all rows of a state."""
        self.points[state.rows] = state.iterates.kept
        self.margins[state.rows] = state.iterates.kept_margin
        self.best = state.iterates.best_points
        return self
