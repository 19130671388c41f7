"""The ascent loop of plain iterative attacks, and the choice of the iterate to return.

An attack supplies its update, a pure function from one state and the gradient there to the next
state.  The loop takes the gradients and returns, depending on the attack's ``keep``,

- ``"last"``: the last point;
- ``"best-loss"``: the point of the highest objective, at the cost of one more forward pass;
- ``"first-success"``: the first misclassified point, else the last.  A misclassified example leaves
  the batch, so that it costs no further passes, also in later restarts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from gibbon.attacks.base import STOPPING
from gibbon.attacks.toolkit.example_rows import ExampleRows
from gibbon.attacks.toolkit.gradients import Gradients
from gibbon.attacks.toolkit.objectives import Objective
from gibbon.attacks.toolkit.projections import Region, choose
from gibbon.core.rng import ExampleStreams
from gibbon.models.attacked_view import redraw
from gibbon.models.classifier import Classifier
from gibbon.models.outputs import margin

KeptIterate = Literal["last", "best-loss", "first-success"]

WORTHWHILE_SHARE = 0.1  # of a batch: a forward pass for fewer examples costs more than it saves


@dataclass(frozen=True)
class State(ExampleRows):
    """The state of an iterative attack, for N examples.

    Args:
        points: shape (N, *input_shape).
        allowed: the points that the threat model allows.
        objective: the function to maximise.
        memory: a tensor that the update carries from step to step, such as a momentum.
        streams: random numbers for random starts, a child for each restart; None to start at
            ``points``.
    """

    points: Tensor
    allowed: Region
    objective: Objective
    memory: Tensor | None = None
    streams: ExampleStreams | None = None

    def start(self, number: int) -> State:
        """Returns the first state of a restart; its streams are spent."""
        if self.streams is None:
            return self
        points = self.allowed.random_point(self.streams.child(number))
        return replace(self, points=points, streams=None)


Update = Callable[[State, Tensor], State]
Direction = Callable[[State, Tensor], Tensor]


def steepest(state: State, gradient: Tensor) -> Tensor:
    """Returns the direction of steepest ascent in the norm of the threat model."""
    return state.allowed.unit(gradient)


def projected_step(length: float, *, direction: Direction = steepest) -> Update:
    """Returns the update of projected gradient ascent: a step of this length, then a projection."""

    def update(state: State, gradient: Tensor) -> State:
        stepped = state.points.add(direction(state, gradient), alpha=length)
        return replace(state, points=state.allowed.project(stepped))

    return update


@dataclass(frozen=True)
class Ascent:
    """Gradient ascent by an update, and which of its points is returned.

    Args:
        update: the function from one state and the gradient there to the next state.
        steps: gradient steps of one run.
        keep: which point is returned.
    """

    update: Update
    steps: int
    keep: KeptIterate

    def run(self, classifier: Classifier, centre: State, *, restarts: int = 1) -> Iterator[Tensor]:
        """Yields one candidate a restart, or with ``"first-success"`` one of all restarts together.

        The latter is the first misclassified point of any restart, else the last point of the
        restart in which a wrong class came nearest to the true one.  If there is more than one
        restart, the model predicts the last points of each: one more forward pass for every example
        that is left.

        A restart costs ``steps`` forward and backward passes, one more forward pass for
        ``"best-loss"``, fewer of both for ``"first-success"``, which takes no gradient at a point
        that it expects to be misclassified and finds so.

        Args:
            classifier: the model under attack.
            centre: the state at the inputs.
            restarts: number of runs.

        Raises `OutputError` if a gradient is NaN or infinite.
        """
        if self.keep == STOPPING:
            yield self._first_of_all(classifier, centre, restarts=restarts)
            return
        ascend = self._to_best if self.keep == "best-loss" else self._to_last
        for number in range(restarts):
            gradients = Gradients(classifier)
            with classifier.run_on():
                found = ascend(gradients, centre.start(number))
            gradients.check()
            yield found

    def _first_of_all(self, classifier: Classifier, centre: State, *, restarts: int) -> Tensor:
        gradients = Gradients(classifier)
        points = centre.points.clone()
        margins = torch.full_like(points.flatten(1)[:, 0], -torch.inf)
        rows = torch.arange(len(points), device=points.device)
        for number in range(restarts):
            whole = len(rows) == len(points)
            here = centre if whole else centre.take(rows)
            with classifier.run_on(None if whole else rows):
                ended = self._to_first_success(gradients, here.start(number))
                found, left = ended.found, ended.rows
                if restarts == 1 or not len(left):
                    points[rows] = found
                    break
                # No step predicted the last points; as separate tries the trust boundary would.
                with classifier.on_rows(left):
                    outputs = classifier.predict(found[left])
            objective = ended.state.objective
            reached = torch.full_like(margins[rows], torch.inf)
            reached[left] = margin(outputs, objective.labels)
            points[rows], margins[rows] = better(points[rows], margins[rows], found, reached)
            rows = rows[left[~objective.misclassified(outputs)]]
            if not len(rows):
                break
        gradients.check()
        return points

    def _to_last(self, gradients: Gradients, state: State) -> Tensor:
        for step in range(self.steps):
            redraw(gradients.classifier, step)
            _, gradient = gradients.at(state.points, state.objective.ascent)
            state = self.update(state, gradient)
        return state.points

    def _to_best(self, gradients: Gradients, state: State) -> Tensor:
        best = state.points
        highest = torch.full_like(best.flatten(1)[:, 0], -torch.inf)
        for step in range(self.steps):
            redraw(gradients.classifier, step)
            outputs, gradient = gradients.at(state.points, state.objective.ascent)
            best, highest = better(best, highest, state.points, state.objective.value(outputs))
            state = self.update(state, gradient)
        with torch.no_grad():
            outputs = gradients.classifier(state.points)
        best, _ = better(best, highest, state.points, state.objective.value(outputs))
        return best

    def _to_first_success(self, gradients: Gradients, state: State) -> _Active:
        active = _Active(state)
        for step in range(self.steps):
            redraw(gradients.classifier, step)
            active.predict_likely_successes(gradients.classifier)
            if not len(active.rows):
                break
            outputs, gradient = gradients.at(
                active.state.points, active.state.objective.ascent, rows=active.rows
            )
            gradient = active.drop_successes(outputs, gradient)
            if not len(active.rows):
                break
            active.state = self.update(active.state, gradient)
        active.found[active.rows] = active.state.points
        return active


class _Active:
    """The examples still under attack, and the points of those that were misclassified.

    A gradient at a misclassified point is of no use.  If the margin, extrapolated linearly from the
    last two steps, predicts that the next point is misclassified, a forward pass without a gradient
    comes first.  One read back to the host after each pass says who leaves, and whose next point is
    likely to be misclassified.

    Attributes:
        state: the state of the examples in the batch.
        rows: int64: which of all examples these are.
        margins: of the examples of the batch at the last steps, two at most.
        found: shape (N, *input_shape), of all examples: the misclassified points, and at the end
            the last points of the examples in the batch, which the model did not predict.
    """

    def __init__(self, state: State) -> None:
        self.state = state
        self.rows = torch.arange(len(state.points), device=state.points.device)
        self.margins: list[Tensor] = []
        self.found = torch.empty_like(state.points)
        self._likely = torch.empty(0, dtype=torch.int64)  # positions, on the host
        self._attacked = 0  # examples in the last batch with a gradient

    def predict_likely_successes(self, classifier: Classifier) -> None:
        """Predicts the points expected to be misclassified, and drops the examples that are."""
        count = len(self._likely)
        if not count or count < WORTHWHILE_SHARE * self._attacked:
            return
        likely = self._on_device(self._likely)
        with torch.no_grad(), classifier.on_rows(self.rows[likely]):
            outputs = classifier(self.state.points[likely])
        (wrong,) = _on_host(self.state.objective.take(likely).misclassified(outputs))
        stays = torch.ones(len(self.rows), dtype=torch.bool)
        stays[self._likely[wrong]] = False
        self._drop(stays)

    def drop_successes(self, outputs: Tensor, gradient: Tensor) -> Tensor:
        """Drops the examples that are misclassified at the current points, given their outputs.

        Returns the gradients of those that stay.
        """
        objective, self._attacked = self.state.objective, len(self.rows)
        self.margins = [*self.margins[-1:], margin(outputs, objective.labels)]
        wrong = objective.misclassified(outputs)
        masks = [wrong]
        if len(self.margins) == 2:
            before, last = self.margins
            masks.append((2 * last > before) & ~wrong)
        leaves, *likely = _on_host(*masks)
        stay = self._drop(~leaves)
        for each in likely:
            self._likely = each[~leaves].nonzero().squeeze(1)
        return gradient if stay is None else gradient[stay]

    def _drop(self, stays: Tensor) -> Tensor | None:
        """Takes examples out of the batch, and returns the positions of the others; None for all.

        ``stays``, bool, shape (M,), is on the host.
        """
        if bool(stays.all()):
            return None
        leave, stay = (self._on_device(each.nonzero().squeeze(1)) for each in (~stays, stays))
        self.found[self.rows[leave]] = self.state.points[leave]
        self.state, self.rows = self.state.take(stay), self.rows[stay]
        self.margins = [each[stay] for each in self.margins]
        return stay

    def _on_device(self, positions: Tensor) -> Tensor:
        return positions.to(self.rows.device, non_blocking=True)


def _on_host(*masks: Tensor) -> tuple[Tensor, ...]:
    """Returns masks of equal shape on the CPU, read at once."""
    return torch.stack(masks).cpu().unbind()


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
    return choose(larger, other_points, points), torch.where(larger, other_values, values)
