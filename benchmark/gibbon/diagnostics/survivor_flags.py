"""Flags of results that a short attack on their survivors shows to be too low."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from gibbon.attacks.base import SearchMethod
from gibbon.diagnostics.attacked_cell import AttackedCell
from gibbon.diagnostics.order_flags import ComparedCell
from gibbon.metrics.intervals import wilson_interval
from gibbon.records.flag_share import FlagShare
from gibbon.records.flags import Flag
from gibbon.records.survivor_check import SurvivorCheck

KIND = "survivors-misclassified"
FEWEST = 3  # survivors that must be misclassified
FEWEST_SERIOUS = 4
HIGHER, MUCH_HIGHER = 0.02, 0.10  # of all examples: how much higher the error is at least

# Attacks that nobody takes for a bound of what an adversary can do.
NO_CLAIM = (SearchMethod.NOISE, SearchMethod.FOR_TRANSFER)
# Attacks that are known to be weaker than an iterative one with gradients.
KNOWN_WEAKER = (SearchMethod.SINGLE_STEP, SearchMethod.GRADIENT_FREE)


def survivor_flags(check: SurvivorCheck, methods: Mapping[str, SearchMethod]) -> Iterator[Flag]:
    """Yields a flag for each attack whose survivors a short attack misclassifies.

    Of M survivors that were attacked, k are misclassified.  The error of an adversary is then
    higher than that of the attacks by at least the lower end of the 95 % interval of k / M, times
    the share of the survivors among all examples.

    Args:
        check: the result of the short attack.
        methods: by label, the way of searching of each attack.
    """
    found = len(check.misclassified)
    if found < FEWEST or not check.examples:
        return
    share = check.survivors / check.examples
    higher = wilson_interval(found, check.tried).low * share
    if higher < HIGHER:
        return
    for attack in check.attacks:
        method = methods.get(attack, SearchMethod.UNKNOWN)
        if method in NO_CLAIM:
            continue
        known = method in KNOWN_WEAKER
        serious = higher >= MUCH_HIGHER and found >= FEWEST_SERIOUS and not known
        yield Flag(
            kind=KIND,
            severity="serious" if serious else "warning",
            dataset=check.dataset,
            model=check.model,
            attack=attack,
            epsilon=check.epsilon,
            share=FlagShare(count=found, of=check.tried),
            sentence=f"a short attack by Gibbon misclassifies {found} of {check.tried} of the "
            f"examples that {_missed(check.attacks)} missed ({', '.join(check.methods)}): the "
            f"true error is at least {100 * higher:.0f} points higher",
            advice=_advice(method),
            suite='[[experiments.attacks]]\nname = "autoattack"\n'
            f'epsilon = "{check.epsilon}"\nnorm = "{check.norm}"',
        )


def search_methods(
    compared: Iterable[ComparedCell], attacked: Iterable[AttackedCell]
) -> Iterator[tuple[str, str, SearchMethod]]:
    """Yields the model, the label and the way of searching of each attack.

    An attack that does not say how it searches takes a single step if its longest run took one
    gradient, unless it declares more ``steps``: then it is taken for what it claims to be.
    """
    single = {
        (each.row.model, each.row.attack)
        for each in attacked
        if each.takes_gradients and not each.iterative
    }
    for cell in compared:
        method = cell.attacker.method
        several = cell.attacker.steps is not None and cell.attacker.steps > 1
        alone = (cell.model, cell.label) in single and not several
        if method is SearchMethod.UNKNOWN and alone:
            method = SearchMethod.SINGLE_STEP
        yield cell.model, cell.label, method


def _missed(attacks: tuple[str, ...]) -> str:
    return f"{attacks[0]}" if len(attacks) == 1 else f"all {len(attacks)} attacks"


def _advice(method: SearchMethod) -> str:
    if method is SearchMethod.SINGLE_STEP:
        return (
            "The error under a single step is no bound of what an adversary can do: add an "
            "iterative attack, such as pgd or autoattack."
        )
    if method is SearchMethod.GRADIENT_FREE:
        return (
            "An adversary who knows the model does better: add an attack with gradients, such as "
            "autoattack."
        )
    return "Compare the attack with autoattack on the same examples; look at its steps and loss."
