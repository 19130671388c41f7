"""Which of two attacks on one model should find at least as many errors as the other.

Attacks are ordered only if an argument says so:

- *Noise* is below attacks that take a gradient: it is an average point of the ball.
- *Single-step* attacks are below *iterative* ones, which climb the same loss further.
- *Gradient-free* searches are below iterative attacks with enough steps (Carlini et al. 2019,
  section 5.5; Athalye et al. 2018, section 3.1).  In L1 that is known of APGD alone (Croce and Hein
  2021, section 5).
- *Fewer* steps, restarts or queries are below more of the same attack with the same other
  parameters.

In each case the norm is the same, the weaker attack's epsilon is not larger, its box is not wider,
and an iterative attack's path is long enough: to the surface of the ball if it should beat a single
step, longer if it should beat a search of many queries.  Everything else is left alone:
minimal-norm attacks at a fixed epsilon, two losses, two iterative attacks, targeted attacks,
attacks for transfer, a single step within bounds and without, a loss with and without rounding
(``fgsm-naive``), and attacks whose method is not known.

A list of attacks fools the model where any of its members does: it is above what one of them is
above, and below what all of them are below.

An order is *strict* if the stronger attack also keeps the best of the points that it visits.  An
attack that returns its last point may step past an adversarial one, so that only a large
difference says something.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from gibbon.attacks.apgd import APGD, APGDDLR, APGDT
from gibbon.attacks.base import (
    STOPPING,
    Attack,
    SearchMethod,
    is_targeted,
    iterates_of,
    parameters_of,
)
from gibbon.attacks.toolkit.parameter_text import parameter_texts
from gibbon.core.threat import Bounds, Norm, ThreatModel

# Parameters of which more can only help, by the names that we and the libraries give them.
EFFORT = frozenset(
    [
        *("steps", "max_iter", "n_iter", "nb_iter", "iterations", "max_iterations"),
        *("restarts", "n_restarts", "nb_random_init", "num_random_init", "repeats"),
        *("queries", "n_queries", "max_queries", "searches", "binary_search_steps"),
        *("n_target_classes", "target_classes", "boundary_classes"),
    ]
)
STEPS = ("steps", "max_iter", "n_iter")
BEST = frozenset(["best-loss", STOPPING, "nearest"])

FEWEST_STEPS = 5  # of an attack that should beat a single step
ENOUGH_STEPS = 10  # of one that should beat a search of many queries
ENOUGH_RADII = 1.25  # that its path is long: as in Madry et al. 2018 on MNIST, 40 steps of ε / 30
ENOUGH_SEARCHING = 20  # of a minimal-norm search that should beat noise
ROUNDING = 1e-6  # of a path that is one epsilon long

_WITH_EFFORT = frozenset(
    [
        *(SearchMethod.ITERATIVE, SearchMethod.GRADIENT_FREE, SearchMethod.MINIMAL_NORM),
        *(SearchMethod.FOR_TRANSFER, SearchMethod.UNKNOWN),
    ]
)


@dataclass(frozen=True)
class Attacker:
    """An attack under a threat model, as far as its order depends on it.

    Args:
        attack: the attack, or the member of a list.
        threat: the norm, the budget and the box.
        bounds: the bounds of the inputs.
        took_gradients: whether it took any gradient of the model.
        carried: whether it takes over successes at smaller epsilons.
    """

    attack: Attack
    threat: ThreatModel
    bounds: Bounds
    took_gradients: bool = True
    carried: bool = False

    @property
    def members(self) -> tuple[Attacker, ...]:
        """The members of a list of attacks; empty for another attack."""
        return tuple(replace(self, attack=each) for each in self.attack.made_of)

    @property
    def method(self) -> SearchMethod:
        """How it searches, from what it declares and from whether it took gradients."""
        declared = self.attack.search_method
        blind = not self.attack.needs_gradient or (
            declared is SearchMethod.UNKNOWN and not self.took_gradients
        )
        if blind and declared is not SearchMethod.NOISE:
            return SearchMethod.GRADIENT_FREE
        return declared

    @property
    def steps(self) -> int | None:
        """The number of gradient steps of one run, if it is a parameter."""
        parameters = parameters_of(self.attack)
        found = (parameters.get(name) for name in STEPS)
        return next((each for each in found if isinstance(each, int)), None)

    @property
    def keeps_best(self) -> bool:
        """Whether the attack returns the best point that it visited, or the first success."""
        return BEST.issuperset(iterates_of(self.attack))

    def climbs(self, *, radii: float = 1.0, steps: int = FEWEST_STEPS) -> bool:
        """Returns whether it is an untargeted iterative attack with such a path and so many steps.

        A path of one radius reaches the surface of the ball, if no step is lost.
        """
        if self.method is not SearchMethod.ITERATIVE:
            return False
        if is_targeted(self.attack):
            return False
        length = self.attack.path_length(self.threat, bounds=self.bounds)
        return length >= radii - ROUNDING and self.has_steps(steps)

    def has_steps(self, fewest: int) -> bool:
        """Returns whether it takes so many steps, or as many as its own rule says."""
        return self.steps is None or self.steps >= fewest


@dataclass(frozen=True)
class Order:
    """The claim that one attack should find at least as many errors as another.

    Args:
        kind: the kind of flag that is raised if it does not.
        reason: why, as a clause.
        strict: whether a small difference counts, too.
    """

    kind: str
    reason: str
    strict: bool


WEAKER, BLACK_BOX = "weaker-attack-stronger", "black-box-stronger"


def order_of(weaker: Attacker, stronger: Attacker) -> Order | None:
    """Returns why ``stronger`` should find at least as many errors as ``weaker``, or None.

    >>> from gibbon.attacks.fgsm import FGSM
    >>> from gibbon.attacks.pgd import PGD
    >>> from gibbon.core.threat import Epsilon
    >>> box = Bounds(0.0, 1.0)
    >>> threat = ThreatModel(Norm.LINF, Epsilon.parse("0.1"), box)
    >>> fgsm, pgd = Attacker(FGSM(), threat, box), Attacker(PGD(keep="best-loss"), threat, box)
    >>> order_of(fgsm, pgd)
    Order(kind='weaker-attack-stronger', reason='one step against many', strict=True)
    >>> order_of(pgd, fgsm) is None
    True
    """
    if not _allows(stronger.threat, weaker.threat) or (weaker.carried and not stronger.carried):
        return None
    return _order(weaker, stronger)


def _order(weaker: Attacker, stronger: Attacker) -> Order | None:
    if weaker.members:
        below = [_order(each, stronger) for each in weaker.members]
        known = [each for each in below if each is not None]
        if len(known) < len(below):
            return None
        kinds = {each.kind for each in known}
        strict = all(each.strict for each in known)
        return replace(known[0], kind=kinds.pop() if len(kinds) == 1 else WEAKER, strict=strict)
    if stronger.members:
        above = [each for member in stronger.members if (each := _order(weaker, member))]
        return max(above, key=lambda each: each.strict, default=None)
    return next(_reasons(weaker, stronger), None)


def _reasons(weaker: Attacker, stronger: Attacker) -> Iterator[Order]:
    below, best = weaker.method, stronger.keeps_best
    if _is_less_of_the_same(weaker, stronger):
        yield Order(WEAKER, "less of the same attack", strict=best)
    elif below is SearchMethod.NOISE:
        above = stronger.method
        searches = above is SearchMethod.MINIMAL_NORM and stronger.has_steps(ENOUGH_SEARCHING)
        if stronger.climbs():
            yield Order(WEAKER, "noise against gradients", strict=best)
        elif above is SearchMethod.SINGLE_STEP or searches:
            yield Order(WEAKER, "noise against gradients", strict=False)
    elif below is SearchMethod.SINGLE_STEP and stronger.climbs():
        yield Order(WEAKER, "one step against many", strict=best)
    elif below is SearchMethod.GRADIENT_FREE and _beats_queries(stronger):
        strict = best and _follows_the_margin(stronger.attack)
        yield Order(BLACK_BOX, "no gradients against gradients", strict=strict)


def _allows(more: ThreatModel, less: ThreatModel) -> bool:
    """Returns whether all points of one threat model are points of another."""
    if more.norm is not less.norm or less.epsilon > more.epsilon or more.radius == 0:
        return False
    inner, outer = less.bounds, more.bounds
    return outer is None or (
        inner is not None and outer.low <= inner.low and inner.high <= outer.high
    )


def _is_less_of_the_same(weaker: Attacker, stronger: Attacker) -> bool:
    """Returns whether one attack is another with fewer steps, restarts or queries, or as many."""
    less, more = weaker.attack, stronger.attack
    if type(less) is not type(more) or weaker.method not in _WITH_EFFORT:
        return False
    if weaker.keeps_best and not stronger.keeps_best:
        return False
    few, many = parameters_of(less), parameters_of(more)
    counted = [name for name in EFFORT if isinstance(few.get(name), int)]
    if not all(isinstance(many[name], int) and few[name] <= many[name] for name in counted):
        return False
    one, other = (
        {name: text for name, text in parameter_texts(each).items() if name not in counted}
        for each in (less, more)
    )
    return {**one, "keep": ""} == {**other, "keep": ""}


def _beats_queries(attacker: Attacker) -> bool:
    if not attacker.climbs(radii=ENOUGH_RADII, steps=ENOUGH_STEPS):
        return False
    return attacker.threat.norm is not Norm.L1 or isinstance(attacker.attack, APGD)


def _follows_the_margin(attack: Attack) -> bool:
    """Returns whether it climbs a difference of outputs, which is positive if misclassified."""
    return isinstance(attack, APGDDLR | APGDT) or parameters_of(attack).get("loss") == "margin"
