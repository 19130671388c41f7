"""Passes that an attack makes for an example, counted from its parameters.

The counts of Gibbon's own attacks are exact for an example that is never misclassified; tests
compare them with counted passes.  Searches that end when they have succeeded, and attacks of other
libraries, whose parameters may mean anything, have a range.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import singledispatch

from gibbon.attacks.apgd import APGDCE, APGDDLR, APGDT
from gibbon.attacks.base import STOPPING, Attack, DirectionAttack, parameters_of
from gibbon.attacks.bim import BIM
from gibbon.attacks.cw import CW
from gibbon.attacks.ddn import DDN
from gibbon.attacks.deepfool import DeepFool
from gibbon.attacks.fab import FAB
from gibbon.attacks.fab_t import FABT
from gibbon.attacks.fmn import FMN
from gibbon.attacks.lbfgs import LBFGS
from gibbon.attacks.rotation import Rotation
from gibbon.attacks.square import Square
from gibbon.attacks.vmi_fgsm import VMIFGSM

STEP_OPERATIONS = 12  # elementwise operations of a gradient step beside its passes, with checks
SEARCH_OPERATIONS = 40  # of a step of APGD or FAB, which keep points, losses and step sizes
QUERY_OPERATIONS = 15
EARLY_STEPS = (1, 3, 10)  # gradient steps until an example is misclassified that will be: range
EARLY_QUERIES = (0.005, 0.05, 0.25)  # share of the queries, likewise
FAB_EXTRA = 7  # forward passes of a run of FAB before and after its steps


@dataclass(frozen=True)
class NumberRange:
    """A number with its range: at least ``low``, likely ``likely``, at most ``high``."""

    low: float
    likely: float
    high: float

    @classmethod
    def exactly(cls, value: float) -> NumberRange:
        """Returns a number that is known."""
        return cls(value, value, value)

    def __add__(self, other: NumberRange) -> NumberRange:
        return NumberRange(self.low + other.low, self.likely + other.likely, self.high + other.high)

    def __mul__(self, other: NumberRange) -> NumberRange:
        """Returns the product of two numbers that are not negative."""
        return NumberRange(self.low * other.low, self.likely * other.likely, self.high * other.high)

    def times(self, factor: float) -> NumberRange:
        """Returns the number times a factor that is not negative."""
        return NumberRange(self.low * factor, self.likely * factor, self.high * factor)


ONE, NONE = NumberRange.exactly(1), NumberRange.exactly(0)


@dataclass(frozen=True)
class SearchPasses:
    """The passes of one search of an attack for an example, before it is judged.

    Args:
        forward, backward: for an example that it does not misclassify.
        early: share of these for an example that it does; 1 if it goes on.
        tries: candidates, each of which is judged by a forward pass.
        operations: elementwise operations on the batch beside the passes, for each call.
    """

    forward: NumberRange
    backward: NumberRange
    early: NumberRange = ONE
    tries: int = 1
    operations: int = STEP_OPERATIONS


@singledispatch
def search_passes(attack: Attack, classes: int) -> SearchPasses:
    """Returns the passes of a search, on a model with so many classes.

    An attack that is not known makes as many steps, restarts or queries as its parameters say.
    """
    parameters = parameters_of(attack)
    steps = _positive(parameters, "steps", "iterations", "max_iter", "nb_iter", "n_iter")
    runs = _positive(parameters, "restarts", "nb_random_init", "n_restarts")
    queries = _positive(parameters, "queries", "n_queries")
    if not attack.needs_gradient:
        made = queries * runs if queries > 1 else 0
        return SearchPasses(NumberRange(made / 10, made, made), NONE, operations=QUERY_OPERATIONS)
    made = steps * runs
    stops = parameters.get("keep") == STOPPING
    return SearchPasses(
        NumberRange.exactly(made),
        NumberRange.exactly(made),
        early=_early(made) if stops else ONE,
        tries=1 if stops else runs,
    )


@search_passes.register
def _(attack: DirectionAttack, classes: int) -> SearchPasses:
    made = NumberRange.exactly(int(attack.needs_gradient))
    return SearchPasses(made, made)


@search_passes.register
def _(attack: Rotation, classes: int) -> SearchPasses:
    return SearchPasses(ONE, ONE)


@search_passes.register
def _(attack: BIM, classes: int) -> SearchPasses:
    steps = attack.steps or EARLY_STEPS[-1]  # by its rule, about as many as there are grey levels
    stops = attack.keep == STOPPING
    made = NumberRange.exactly(steps)
    return SearchPasses(made, made, early=_early(steps) if stops else ONE)


@search_passes.register
def _(attack: VMIFGSM, classes: int) -> SearchPasses:
    made = NumberRange.exactly(attack.steps + attack.neighbours * (attack.steps - 1))
    return SearchPasses(made, made)


@search_passes.register(APGDCE)
@search_passes.register(APGDDLR)
def _(attack: APGDCE | APGDDLR, classes: int) -> SearchPasses:
    return _apgd(attack.steps, attack.restarts, 1, stops=attack.keep == STOPPING)


@search_passes.register
def _(attack: APGDT, classes: int) -> SearchPasses:
    targets = min(attack.n_target_classes, classes - 1)
    stops = attack.keep == STOPPING
    return _apgd(attack.steps, attack.restarts, targets, stops=stops, first=1)


def _apgd(steps: int, restarts: int, targets: int, *, stops: bool, first: int = 0) -> SearchPasses:
    runs = restarts * targets
    return SearchPasses(
        NumberRange.exactly(runs * (steps + 1) + first),
        NumberRange.exactly(runs * steps),
        early=_early(runs * steps) if stops else ONE,
        operations=SEARCH_OPERATIONS,
    )


@search_passes.register
def _(attack: FAB, classes: int) -> SearchPasses:
    return _fab(attack.steps, attack.restarts, 1, classes - 1)


@search_passes.register
def _(attack: FABT, classes: int) -> SearchPasses:
    return _fab(attack.steps, attack.restarts, min(attack.target_classes, classes - 1), 1)


def _fab(steps: int, restarts: int, targets: int, gradients: int) -> SearchPasses:
    runs = restarts * targets
    return SearchPasses(
        NumberRange.exactly(2 * runs * steps + FAB_EXTRA - 1),
        NumberRange.exactly(runs * steps * gradients),
        operations=SEARCH_OPERATIONS,
    )


@search_passes.register
def _(attack: Square, classes: int) -> SearchPasses:
    made = attack.queries * attack.restarts
    # A window that changes nothing costs no query.
    forward = NumberRange(0.8 * made, 0.95 * made, 1.05 * made)
    return SearchPasses(
        forward, NONE, early=NumberRange(*EARLY_QUERIES), operations=QUERY_OPERATIONS
    )


@search_passes.register
def _(attack: DeepFool, classes: int) -> SearchPasses:
    rivals = min(attack.classes or classes, classes) - 1
    steps = NumberRange(1, min(3, attack.steps), min(10, attack.steps))
    return SearchPasses(steps.times(2), steps.times(rivals))


@search_passes.register(DDN)
@search_passes.register(FMN)
def _(attack: DDN | FMN, classes: int) -> SearchPasses:
    return SearchPasses(NumberRange.exactly(attack.steps + 1), NumberRange.exactly(attack.steps))


@search_passes.register
def _(attack: CW, classes: int) -> SearchPasses:
    made = attack.steps * attack.searches
    aborted = (
        NumberRange(0.2 * made, 0.6 * made, made)
        if attack.abort_early
        else NumberRange.exactly(made)
    )
    return SearchPasses(aborted, aborted)


@search_passes.register
def _(attack: LBFGS, classes: int) -> SearchPasses:
    made = attack.iterations * attack.searches
    evaluations = NumberRange(0.3 * made, 2 * made, 3 * made)  # an iteration may take several
    return SearchPasses(evaluations, evaluations)


def _early(steps: int) -> NumberRange:
    """Returns the share of steps that an example takes that is misclassified on the way."""
    low, likely, high = (min(1.0, each / steps) for each in EARLY_STEPS)
    return NumberRange(low, likely, high)


def _positive(parameters: Mapping[str, object], *names: str) -> int:
    """Returns the first of some parameters that is a positive whole number, else 1."""
    values = (parameters.get(name) for name in names)
    return next((each for each in values if isinstance(each, int) and each > 0), 1)
