"""The search of the APGD attacks: which climbs are made, and which of their points is returned.

A climb goes from a random point with steps and step sizes as `gibbon.attacks.toolkit.step_schedules` has them.
In L1 three climbs follow each other, in balls of three, two and one epsilon, with 30 %, 30 % and
40 % of the steps, each from the best point of the one before, projected (F. Croce and M. Hein,
"Mind the box", ICML 2021, section 4, https://arxiv.org/abs/2103.01208).

Croce and Hein return the point of the highest objective, and count an example as misled if any
point of the climb was misclassified.  Here both are one: the point that is returned is the
misclassified point of the highest objective, or where none is, the point of the highest objective.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Literal

import torch
from torch import Tensor

from gibbon.attacks.toolkit.gradients import Gradients
from gibbon.attacks.toolkit.objectives import Objective
from gibbon.attacks.toolkit.parallel_restarts import abreast, leaving
from gibbon.attacks.toolkit.projections import Region, region
from gibbon.attacks.toolkit.step_schedules import (
    Halving,
    Pace,
    Rows,
    Sparsening,
    Trail,
    choose,
    halving_checkpoints,
    sparsening_checkpoints,
)
from gibbon.core.rng import ExampleStreams
from gibbon.core.threat import Epsilon, Norm, ThreatModel
from gibbon.models.classifier import Classifier
from gibbon.models.outputs import margin

Keep = Literal["best-loss", "first-success"]

RADII = ((3, 3), (2, 3))  # in L1, before the ball itself: units of epsilon, tenths of the steps


@dataclass(frozen=True)
class Try:
    """One search from a random point: what it climbs, and where its random numbers come from."""

    goal: Objective
    streams: ExampleStreams

    @classmethod
    def joined(cls, tries: Sequence[Try], examples: Tensor) -> Try:
        """Returns these tries, of one kind, abreast for some of the examples."""
        goals = [each.goal.take(examples) for each in tries]
        names = [field.name for field in fields(goals[0])]
        parts = {name: [getattr(goal, name) for goal in goals] for name in names}
        rows = {name: torch.cat(each) for name, each in parts.items() if torch.is_tensor(each[0])}
        keys = torch.cat([each.streams.take(examples).keys for each in tries])
        return cls(replace(goals[0], **rows), ExampleStreams(keys))


def search(
    classifier: Classifier,
    inputs: Tensor,
    *,
    tries: Iterable[Try],
    threat: ThreatModel,
    steps: int,
    rho: float,
    keep: Keep,
) -> Tensor:
    """Returns for each example the best point of all tries, of the inputs' shape.

    Of several tries the point with the largest margin of a wrong class over the true one counts,
    as outside.  A try costs ``steps + 1`` forward and ``steps`` backward passes (in L1 two forward
    passes more); with ``"first-success"`` an example takes part up to its first misclassified point
    only, and the others close ranks.  Where few are left several tries are made abreast.

    Args:
        classifier: the model under attack.
        inputs: shape (N, *input_shape).
        tries: objectives, all of one kind, and streams for all N examples.
        threat: the norm, the budget and the box.
        steps: gradient steps of one try.
        rho: share of the steps between checkpoints that must raise the objective (L∞ and L2).
        keep: ``"best-loss"`` or ``"first-success"``.

    Raises `OutputError` where a gradient is NaN or infinite.
    """
    gradients = Gradients(classifier)
    points = inputs.clone()
    margins = torch.full_like(inputs.flatten(1)[:, 0], -torch.inf)
    left = torch.arange(len(inputs), device=inputs.device)
    remaining = iter(tries)
    while len(left) and (group := abreast(remaining, classifier, examples=len(left))):
        start = _start(
            gradients, torch.cat([inputs[left]] * len(group)), Try.joined(group, left),
            threat=threat, steps=steps, rho=rho,
        )  # fmt: skip
        found = _climb(gradients, start, rho=rho, stop=keep == "first-success", examples=len(left))
        tried = torch.ones_like(left, dtype=torch.bool)  # not misled by a try before this one
        for lane in torch.arange(len(start.points), device=left.device).chunk(len(group)):
            better = tried & (found.margins[lane] > margins[left])
            points[left[better]] = found.points[lane[better]]
            margins[left[better]] = found.margins[lane[better]]
            tried &= ~found.stopped[lane]
        left = left[tried]
    gradients.check()
    return points


@dataclass(frozen=True)
class _Start:
    """Where a climb begins, and how it goes."""

    points: Tensor
    allowed: Region
    goal: Objective
    steps: int
    resumed: bool


def _start(
    gradients: Gradients,
    inputs: Tensor,
    tried: Try,
    *,
    threat: ThreatModel,
    steps: int,
    rho: float,
) -> _Start:
    """Returns the start of the last climb of a try; in L1 the wider ones are made here."""
    *wider, (radius, last) = _radii(threat, steps=steps)
    first = wider[0][0] if wider else radius
    points = region(inputs, threat=first).random_point(tried.streams)
    for number, (ball, count) in enumerate(wider):
        allowed = region(inputs, threat=ball)
        start = _Start(allowed.project(points), allowed, tried.goal, count, resumed=number > 0)
        climbed = _climb(gradients, start, rho=rho, stop=False, examples=len(points))
        points = climbed.best.clone()
    allowed = region(inputs, threat=radius)
    return _Start(allowed.project(points), allowed, tried.goal, last, resumed=bool(wider))


def _radii(threat: ThreatModel, *, steps: int) -> list[tuple[ThreatModel, int]]:
    if threat.norm is not Norm.L1:
        return [(threat, steps)]
    wider = []
    for factor, tenths in RADII:
        epsilon = Epsilon(factor * threat.epsilon.value, f"{factor} * {threat.epsilon}")
        wider.append((replace(threat, epsilon=epsilon), tenths * steps // 10))
    rest = steps - sum(count for _, count in wider)
    return [*(each for each in wider if each[1]), (threat, rest)]


@dataclass(frozen=True)
class _Kept(Rows):
    """The point of each example that will be returned: misled before not, then by objective."""

    points: Tensor
    value: Tensor
    gap: Tensor  # the margin of the best wrong class over the true one

    def or_better(self, points: Tensor, *, value: Tensor, gap: Tensor) -> _Kept:
        misled, before = gap > 0, self.gap > 0
        better = misled & ~before | (misled == before) & (value > self.value)
        return _Kept(
            choose(better, points, self.points),
            torch.where(better, value, self.value),
            torch.where(better, gap, self.gap),
        )


@dataclass(frozen=True)
class _Climber:
    """A climb under way, for the examples that still take part; ``places`` says which these are."""

    trail: Trail
    pace: Pace
    kept: _Kept
    allowed: Region
    goal: Objective
    places: Tensor

    @classmethod
    def begin(cls, start: _Start, *, outputs: Tensor, gradient: Tensor) -> _Climber:
        points, goal = start.points, start.goal
        value = goal.value(outputs)
        trail = Trail.begin(points, gradient=gradient, value=value)
        pace: Pace = Halving.begin(trail)
        if start.allowed.threat.norm is Norm.L1:
            pace = Sparsening.begin(trail, start.allowed, resumed=start.resumed)
        kept = _Kept(points, value, margin(outputs, goal.labels))
        places = torch.arange(len(points), device=points.device)
        return cls(trail, pace, kept, start.allowed, goal, places)

    def then(self, points: Tensor, *, outputs: Tensor, gradient: Tensor) -> _Climber:
        value = self.goal.value(outputs)
        return replace(
            self,
            trail=self.trail.then(points, gradient=gradient, value=value),
            pace=self.pace.noted(value > self.trail.value),
            kept=self.kept.or_better(points, value=value, gap=margin(outputs, self.goal.labels)),
        )

    def checked(self, *, enough: float) -> _Climber:
        pace, back = self.pace.checked(self.trail, self.allowed, enough=enough)
        return replace(self, trail=self.trail.back_to_best(back), pace=pace)

    def take(self, index: Tensor) -> _Climber:
        return _Climber(
            self.trail.take(index),
            self.pace.take(index),
            self.kept.take(index),
            self.allowed.take(index),
            self.goal.take(index),
            self.places[index],
        )


class _Found:
    """What came of a climb, for the N rows of tries abreast.

    Args:
        points: where it began, shape (N, *input_shape).
        examples: how many examples each try has.

    Attributes:
        points: shape (N, *input_shape).
        margins: shape (N,): of the best wrong class over the true one, at these points.
        stopped: bool, shape (N,): whether the climb ended with a misclassified point.
        best: the point of the highest objective, of the rows that did not stop.
    """

    def __init__(self, points: Tensor, *, examples: int) -> None:
        self.examples = examples
        self.points = torch.empty_like(points)
        self.margins = torch.full_like(points.flatten(1)[:, 0], -torch.inf)
        self.stopped = torch.zeros_like(self.margins, dtype=torch.bool)
        self.best = points

    def release(self, climber: _Climber, *, outputs: Tensor) -> _Climber:
        """Takes in the rows that are misled now; returns the climb of those that go on."""
        done = climber.goal.misled(outputs)
        if not bool(done.any()):
            return climber
        leave = leaving(climber.places, done, examples=self.examples)
        self.stopped[climber.places[done]] = True
        self.end(climber.take(done))
        return climber.take(torch.nonzero(~leave).squeeze(1))

    def end(self, climber: _Climber) -> _Found:
        """Takes in all examples of a climb."""
        self.points[climber.places] = climber.kept.points
        self.margins[climber.places] = climber.kept.gap
        self.best = climber.trail.best_points
        return self


def _climb(gradients: Gradients, start: _Start, *, rho: float, stop: bool, examples: int) -> _Found:
    sparse = start.allowed.threat.norm is Norm.L1
    checkpoints = (sparsening_checkpoints if sparse else halving_checkpoints)(start.steps)
    found = _Found(start.points, examples=examples)
    outputs, gradient = gradients.at(start.points, start.goal.ascent)
    climber = _Climber.begin(start, outputs=outputs, gradient=gradient)
    for number in range(1, start.steps + 1):
        if stop:
            climber = found.release(climber, outputs=outputs)
            if not len(climber.places):
                return found
        points = climber.pace.ahead(climber.trail, climber.allowed, first=number == 1)
        if number < start.steps:
            outputs, gradient = gradients.at(points, climber.goal.ascent)
        else:  # nothing follows the last gradient
            with torch.no_grad():
                outputs, gradient = gradients.classifier(points), climber.trail.gradient
        climber = climber.then(points, outputs=outputs, gradient=gradient)
        if number in checkpoints:
            climber = climber.checked(enough=rho * checkpoints[number])
    if stop:
        climber = found.release(climber, outputs=outputs)
    return found.end(climber)
