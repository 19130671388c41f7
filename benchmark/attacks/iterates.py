"""The loop that plain iterative attacks share, and which of its points is returned.

An attack gives its update, a pure function from one state and the gradient there to the next state.
The loop asks for gradients and keeps, as the attack's ``keep`` says,

- ``"last"``: the last point;
- ``"best-loss"``: the point of the highest objective, which costs one more forward pass;
- ``"first-success"``: the first misclassified point, else the last.  An example that was misled
  leaves the batch and the others close ranks, so that it costs no more passes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from benchmark.attacks.gradients import Gradients
from benchmark.attacks.objectives import Objective
from benchmark.attacks.projections import Region, like
from benchmark.classifier import Classifier

Keep = Literal["last", "best-loss", "first-success"]


@dataclass(frozen=True)
class State:
    """Where an attack stands, for N examples.

    Args:
        points: shape (N, *input_shape).
        allowed: the points that the threat model allows.
        goal: what is climbed.
        memory: what the attack remembers of earlier steps, such as a momentum, shape (N, ...).
    """

    points: Tensor
    allowed: Region
    goal: Objective
    memory: Tensor

    @classmethod
    def at(cls, points: Tensor, *, allowed: Region, goal: Objective) -> State:
        """Returns the state at the start, with a memory of zeros."""
        return cls(points, allowed, goal, torch.zeros_like(points))

    def take(self, index: Tensor) -> State:
        """Returns the state of some of the examples."""
        return State(
            self.points[index],
            self.allowed.take(index),
            self.goal.take(index),
            self.memory[index],
        )

    def moved(self, points: Tensor) -> State:
        """Returns the state with other points."""
        return replace(self, points=points)


Update = Callable[[State, Tensor], State]


def climb(
    classifier: Classifier, start: State, *, update: Update, steps: int, keep: Keep
) -> Tensor:
    """Returns one candidate an example: so many updates from a start, in a tensor of its own.

    ``steps`` forward and backward passes, one more forward pass for ``"best-loss"``, fewer of both
    for ``"first-success"``.  Raises `OutputError` where a gradient is NaN or infinite.
    """
    gradients = Gradients(classifier)
    if keep == "first-success":
        found = _to_first_success(gradients, start, update=update, steps=steps)
    elif keep == "best-loss":
        found = _to_best(gradients, start, update=update, steps=steps)
    else:
        found = _to_last(gradients, start, update=update, steps=steps)
    gradients.check()
    return found


def _to_last(gradients: Gradients, state: State, *, update: Update, steps: int) -> Tensor:
    for _ in range(steps):
        _, gradient = gradients.at(state.points, state.goal.ascent)
        state = update(state, gradient)
    return state.points


def _to_best(gradients: Gradients, state: State, *, update: Update, steps: int) -> Tensor:
    best = state.points
    highest = torch.full_like(best.flatten(1)[:, 0], -torch.inf)
    for _ in range(steps):
        outputs, gradient = gradients.at(state.points, state.goal.ascent)
        best, highest = better(best, highest, state.points, state.goal.value(outputs))
        state = update(state, gradient)
    with torch.no_grad():
        outputs = gradients.classifier(state.points)
    best, _ = better(best, highest, state.points, state.goal.value(outputs))
    return best


def _to_first_success(gradients: Gradients, state: State, *, update: Update, steps: int) -> Tensor:
    found = torch.empty_like(state.points)
    places = torch.arange(len(found), device=found.device)
    for _ in range(steps):
        outputs, gradient = gradients.at(state.points, state.goal.ascent)
        done = state.goal.misled(outputs)
        found[places[done]] = state.points[done]
        stay = torch.nonzero(~done).squeeze(1)
        if len(stay) < len(places):
            state, gradient, places = state.take(stay), gradient[stay], places[stay]
        if not len(places):
            return found
        state = update(state, gradient)
    found[places] = state.points
    return found


def better(
    points: Tensor, values: Tensor, other_points: Tensor, other_values: Tensor
) -> tuple[Tensor, Tensor]:
    """Returns for each example the point with the larger value, the first of equals, and the value.

    Args:
        points: shape (N, *input_shape).
        values: shape (N,); NaN is below everything.
        other_points: shape (N, *input_shape).
        other_values: shape (N,).
    """
    larger = other_values > values
    kept = torch.where(like(larger, points), other_points, points)
    return kept, torch.where(larger, other_values, values)
