"""The loop that plain iterative attacks share, and which of its points is returned.

An attack gives its update, a pure function from one state and the gradient there to the next state.
The loop asks for gradients and keeps, as the attack's ``keep`` says,

- ``"last"``: the last point;
- ``"best-loss"``: the point of the highest objective, which costs one more forward pass;
- ``"first-success"``: the first misclassified point, else the last.  An example that was misled
  leaves the batch and the others close ranks, so that it costs no more passes, in later restarts
  neither.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from gibbon.attacks.base import STOPPING
from gibbon.attacks.toolkit.gradients import Gradients
from gibbon.attacks.toolkit.objectives import Objective
from gibbon.attacks.toolkit.projections import Region
from gibbon.core.rng import ExampleStreams
from gibbon.metrics.distances import like
from gibbon.models.classifier import Classifier
from gibbon.models.outputs import margin

Keep = Literal["last", "best-loss", "first-success"]

WORTH_IT = 0.1  # share of a batch from which on a forward pass of its own pays


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

    @classmethod
    def forgetful(cls, points: Tensor, *, allowed: Region, goal: Objective) -> State:
        """Returns the state at the start of an attack that remembers nothing."""
        return cls(points, allowed, goal, points.new_empty(len(points), 0))

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
    for ``"first-success"``, which takes no gradient where it expects a success and finds it.
    Raises `OutputError` where a gradient is NaN or infinite.
    """
    gradients = Gradients(classifier)
    if keep == STOPPING:
        found = _to_first_success(gradients, start, update=update, steps=steps).points
    elif keep == "best-loss":
        found = _to_best(gradients, start, update=update, steps=steps)
    else:
        found = _to_last(gradients, start, update=update, steps=steps)
    gradients.check()
    return found


def climbs(
    classifier: Classifier,
    centre: State,
    *,
    update: Update,
    steps: int,
    keep: Keep,
    restarts: int,
    streams: ExampleStreams | None,
) -> Iterator[Tensor]:
    """Yields one candidate a restart, or with ``"first-success"`` one of all restarts together.

    That is the first misclassified point of any restart, else the last point of the restart in
    which a wrong class came nearest to the true one.  After every restart but an only one the model
    is asked of the last points: one forward pass more for each example that is left.

    Args:
        classifier: the model under attack.
        centre: the state at the inputs.
        update: from one state and the gradient there to the next.
        steps: gradient steps of one restart.
        keep: which point is returned.
        restarts: how many climbs there are.
        streams: where random starts come from, a child for each restart; None to start at the
            inputs.
    """
    if keep == STOPPING:
        yield _first_of_all(
            classifier, centre, update=update, steps=steps, restarts=restarts, streams=streams
        )
        return
    for number in range(restarts):
        start = _start(centre, streams, number=number)
        yield climb(classifier, start, update=update, steps=steps, keep=keep)


def _start(centre: State, streams: ExampleStreams | None, *, number: int) -> State:
    if streams is None:
        return centre
    return centre.moved(centre.allowed.random_point(streams.child(number)))


def _first_of_all(
    classifier: Classifier,
    centre: State,
    *,
    update: Update,
    steps: int,
    restarts: int,
    streams: ExampleStreams | None,
) -> Tensor:
    gradients = Gradients(classifier)
    points = centre.points.clone()
    margins = torch.full_like(points.flatten(1)[:, 0], -torch.inf)
    rows = torch.arange(len(points), device=points.device)
    for number in range(restarts):
        here = centre if len(rows) == len(points) else centre.take(rows)
        drawn = streams.take(rows) if streams is not None else None
        start = _start(here, drawn, number=number)
        found = _to_first_success(gradients, start, update=update, steps=steps)
        if restarts == 1 or not len(found.left):
            points[rows] = found.points
            break
        # The last points were not looked at: the trust boundary would, if they were tries.
        outputs = classifier.predict(found.points[found.left])
        goal = here.goal.take(found.left)
        reached = torch.full_like(margins[rows], torch.inf)
        reached[found.left] = margin(outputs, goal.labels)
        points[rows], margins[rows] = better(points[rows], margins[rows], found.points, reached)
        rows = rows[found.left[~goal.misled(outputs)]]
        if not len(rows):
            break
    gradients.check()
    return points


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


@dataclass(frozen=True)
class _Stopped:
    """Points, shape (N, *input_shape), and the positions of those that no step saw misclassified.

    The last step's points are among the latter: nobody asked the model of them.
    """

    points: Tensor
    left: Tensor


def _to_first_success(
    gradients: Gradients, state: State, *, update: Update, steps: int
) -> _Stopped:
    race = _Race(state)
    for _ in range(steps):
        race.ask_the_hopeful(gradients.classifier)
        race.close_ranks()
        if not len(race.places):
            break
        outputs, gradient = gradients.at(race.state.points, race.state.goal.ascent)
        race.look(outputs)
        race.state = update(race.state, gradient)
    return race.stopped()


class _Race:
    """The examples that are still under attack, and the points of those that were misled.

    A gradient at a point that misleads is of no use.  Where the margin, drawn on in a line from the
    last two steps, says that the next point will, the model is asked there without one first.

    Attributes:
        state: where the examples of the batch stand.
        places: int64: which of all examples these are.
        gone: bool: which of them were misled and wait to leave the batch.
        margins: of the examples of the batch at the last steps, two at most.
        found: shape (N, *input_shape), of all examples: where they were misled.
    """

    def __init__(self, state: State) -> None:
        self.state = state
        self.places = torch.arange(len(state.points), device=state.points.device)
        self.gone = torch.zeros_like(self.places, dtype=torch.bool)
        self.margins: list[Tensor] = []
        self.found = torch.empty_like(state.points)

    def ask_the_hopeful(self, classifier: Classifier) -> None:
        """Notes those that were expected to be misled at the points of now, and are."""
        if len(self.margins) < 2:
            return
        before, last = self.margins
        hopeful = torch.nonzero((2 * last > before) & ~self.gone).squeeze(1)
        if len(hopeful) < WORTH_IT * len(self.places):
            return
        with torch.no_grad():
            outputs = classifier(self.state.points[hopeful])
        self._note(hopeful[self.state.goal.take(hopeful).misled(outputs)])

    def look(self, outputs: Tensor) -> None:
        """Notes those that are misled at the points of now, given what the model says of them."""
        self.margins = [*self.margins[-1:], margin(outputs, self.state.goal.labels)]
        self._note(torch.nonzero(self.state.goal.misled(outputs) & ~self.gone).squeeze(1))

    def close_ranks(self) -> None:
        """Takes those that were misled out of the batch."""
        stay = torch.nonzero(~self.gone).squeeze(1)
        if len(stay) < len(self.gone):
            self.state = self.state.take(stay)
            self.places, self.gone = self.places[stay], self.gone[stay]
            self.margins = [each[stay] for each in self.margins]

    def stopped(self) -> _Stopped:
        """Returns where all examples ended."""
        last = torch.nonzero(~self.gone).squeeze(1)
        self.found[self.places[last]] = self.state.points[last]
        return _Stopped(self.found, self.places[last])

    def _note(self, misled: Tensor) -> None:
        self.found[self.places[misled]] = self.state.points[misled]
        self.gone[misled] = True


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
