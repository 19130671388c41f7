"""Why a model answers the same inputs differently: random numbers, or state that calls change.

The model is called several times on inputs that it has not seen, from equal seeds of the global
generators, and again after what it keeps has been put back (`gibbon.models.model_state`).

- Answers that are equal from equal seeds, and differ without, come from the global generators.
- Answers that change from call to call from equal seeds, and change in the same way once all that
  the model keeps except its generators is put back, come from *state*: a counter, a cache, a
  schedule.  If the generators must be put back too, they come from a generator that it keeps.
- State that can't be reached, such as a global variable, shows by the order of the answers: they
  return after a few calls, they move in one direction, or they change after the first call on
  inputs that are new, and never again.  Random answers of two kinds do so once in 500 times.

Otherwise the cause is unknown: random numbers of the operating system, or a state without a
pattern.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum

import torch
from torch import Tensor

from gibbon.core.rng import seeded_globals
from gibbon.models.classifier import Classifier
from gibbon.models.model_state import ModelState

SEED = 0
REPLAYED = 4  # calls that are made again after the state is put back
PATTERN = 16  # calls whose order shows a pattern
LONGEST_PERIOD = 6  # calls after which answers return
NEW_INPUTS = 4  # inputs whose first answer is compared with the later ones
LATER = 2  # answers to each of them
SHIFT = 0.05  # of the way to the middle of the bounds, between inputs that are new
STEPS_BACK = 1e-3  # of the whole way: smaller steps back are rounding
FEWEST_CALLS = 3 * REPLAYED + 2


class Cause(Enum):
    """Why answers to the same inputs differ."""

    #: Random numbers of torch, numpy or random: equal seeds give equal answers.
    SEEDED = "seeded"
    #: Random numbers of a generator that the model keeps.
    OWN_GENERATOR = "own generator"
    #: State that changes from call to call.
    STATE = "state"
    UNKNOWN = "unknown"


def cause_of_change(
    ask: Callable[[Tensor], Tensor],
    inputs: Tensor,
    *,
    classifier: Classifier,
    alike: Callable[[Tensor, Tensor], bool],
    calls: int = 1000,
) -> Cause:
    """Returns why a model answers the same inputs differently.

    What the model keeps is put back afterwards.

    Args:
        ask: returns its outputs for inputs.
        inputs: a few examples, shape (N, *input_shape).
        classifier: the model, under evaluation.
        alike: whether two outputs differ by no more than rounding.
        calls: number of calls that may be made; with fewer than `FEWEST_CALLS` the cause is
            unknown.

    >>> class Counts(torch.nn.Module):
    ...     calls = 0
    ...     def forward(self, inputs):
    ...         self.calls += 1
    ...         return inputs * self.calls
    >>> classifier = Classifier(Counts(), classes=3, input_shape=(3,))
    >>> with classifier.evaluating():
    ...     cause_of_change(classifier, torch.rand(2, 3), classifier=classifier, alike=torch.equal)
    <Cause.STATE: 'state'>
    """
    made = _Calls(ask, inputs, classifier, alike)
    if calls < FEWEST_CALLS:
        return Cause.UNKNOWN
    whole = ModelState(classifier)
    kept = ModelState(classifier, generators=False)
    try:
        first = made.seeded(0, REPLAYED)
        if made.all_alike(first):
            plain = [ask(made.new(0)) for _ in range(LATER)]
            return Cause.UNKNOWN if made.all_alike(plain) else Cause.SEEDED
        causes = [(kept, Cause.STATE)]
        if whole.has_generators:
            causes.append((whole, Cause.OWN_GENERATOR))
        for state, cause in causes:
            state.restore()
            if made.same(first, made.seeded(0, REPLAYED)):
                return cause
        left = calls - 3 * REPLAYED
        return Cause.STATE if _has_pattern(made, left) else Cause.UNKNOWN
    finally:
        whole.restore()


class _Calls:
    """Calls of a model on inputs that it has not seen, from equal seeds."""

    def __init__(
        self,
        ask: Callable[[Tensor], Tensor],
        inputs: Tensor,
        classifier: Classifier,
        alike: Callable[[Tensor, Tensor], bool],
    ) -> None:
        self.ask, self.inputs, self.alike = ask, inputs, alike
        self.middle = (classifier.bounds.low + classifier.bounds.high) / 2

    def new(self, number: int) -> Tensor:
        """Returns the inputs, moved so that the model has not seen them: it may know the others."""
        moved: Tensor = self.inputs + SHIFT * (number + 1) * (self.middle - self.inputs)
        return moved

    def seeded(self, number: int, count: int) -> list[Tensor]:
        """Returns the answers of several calls on equal inputs, each from equal seeds."""
        given, answers = self.new(number), []
        for _ in range(count):
            with seeded_globals(SEED, given.device):
                answers.append(self.ask(given))
        return answers

    def all_alike(self, answers: Sequence[Tensor]) -> bool:
        """Returns whether all answers are those of the first call."""
        return all(self.alike(each, answers[0]) for each in answers[1:])

    def same(self, one: Sequence[Tensor], other: Sequence[Tensor]) -> bool:
        """Returns whether two rows of answers are alike, call by call."""
        return all(self.alike(a, b) for a, b in zip(one, other, strict=True))


def _has_pattern(made: _Calls, calls: int) -> bool:
    """Returns whether the order of answers from equal seeds can't be chance."""
    if calls < PATTERN:
        return False
    answers = made.seeded(0, PATTERN)
    if not made.all_alike(answers) and (_returns(made, answers) or _moves_on(answers)):
        return True
    if calls < PATTERN + NEW_INPUTS * (LATER + 1):
        return False
    for number in range(1, NEW_INPUTS + 1):
        before, *later = made.seeded(number, LATER + 1)
        if made.alike(before, later[0]) or not made.all_alike(later):
            return False
    return True


def _returns(made: _Calls, answers: Sequence[Tensor]) -> bool:
    """Returns whether answers return after a few calls, each time."""
    return any(
        made.same(answers[:-period], answers[period:]) for period in range(2, LONGEST_PERIOD + 1)
    )


def _moves_on(answers: Sequence[Tensor]) -> bool:
    """Returns whether each answer lies farther than the one before, in one direction."""
    points = torch.stack([each.double().flatten() for each in answers])
    way = points[-1] - points[0]
    length = float(way.norm())
    if not length:
        return False
    steps = (points[1:] - points[:-1]) @ way / length
    return bool((steps >= -STEPS_BACK * length).all())
