"""Reliability flags: signs that a number does not mean what it seems to mean.

Each flag is a short sentence.  They do not change a number; tables show them first.
The signs of masked gradients are those of A. Athalye, N. Carlini and D. Wagner, "Obfuscated
gradients give a false sense of security", ICML 2018, section 3.1.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from gibbon.core.threat import PIXEL_STEPS, Norm, ThreatModel, Verdict
from gibbon.records.run import Evaluation, Transfer

# From this share of examples on, zero gradients are worth a flag: below it they can't move a rate
# by more than its usual interval.
ZERO_GRADIENT_SHARE = 0.01

# How much an attack of ours knows and does: one that does more should not find less.  Other
# people's attacks are not ranked.
STRENGTH = {"noise-uniform": 0, "noise-sign": 0, "fgsm-naive": 1, "fgsm": 1, "pgd": 2}
MASKING = "a sign of masked gradients, or of a loss that does not follow the error"

WORDS = {
    Verdict.NOT_FINITE: "not finite",
    Verdict.OUT_OF_BOUNDS: "out of bounds",
    Verdict.OUT_OF_BUDGET: "out of budget",
}


def candidate_flags(
    verdict: NDArray[np.int64],
    distance: NDArray[np.floating],
    *,
    epsilon: float,
    zero_gradient: NDArray[np.bool_] | None,
    done: NDArray[np.bool_],
) -> Iterator[str]:
    """Yields what is wrong with one cell's candidates.

    ``done`` marks the examples for which nothing was left to do, so that the input may come back.
    """
    total = len(verdict)
    for kind, words in WORDS.items():
        count = int(np.count_nonzero(verdict == kind))
        if count:
            yield f"{count} of {total} candidates {words}: not counted as adversarial"
    if epsilon > 0 and np.all(distance == 0) and not np.all(done):
        yield "the attack returned its inputs unchanged"
    if zero_gradient is not None and np.mean(zero_gradient) >= ZERO_GRADIENT_SHARE:
        count = int(np.count_nonzero(zero_gradient))
        yield f"the gradient is zero in every coordinate for {count} of {total} examples"


def budget_flags(attack: str, threats: Iterable[ThreatModel]) -> Iterator[str]:
    """Yields which budgets of an attack leave no picture out: any is within reach of any other.

    A budget of pixel steps written without the 255 is the usual reason.
    """
    for threat in threats:
        bounds = threat.bounds
        if threat.norm is not Norm.LINF or bounds is None or threat.radius < bounds.width:
            continue
        steps = threat.epsilon.value
        meant = (
            f": did you mean {steps}/{PIXEL_STEPS}?"
            if steps.denominator == 1 and steps <= PIXEL_STEPS
            else ""
        )
        yield (
            f"{attack}: epsilon {threat.epsilon} is as wide as the box "
            f"[{bounds.low:g}, {bounds.high:g}]{meant}"
        )


def masking_flags(
    evaluations: Iterable[Evaluation], transfers: Iterable[Transfer]
) -> Iterator[str]:
    """Yields signs of masked gradients: a stronger attack that finds less than a weaker one.

    An attack is stronger that does more, or does the same under a threat model that allows more.
    Intervals must not overlap, so that sampling does not raise a flag.
    """
    rows = [row for row in evaluations if row.status == "done" and not row.unattacked]
    for weaker in rows:
        for stronger in rows:
            if _should_find_more(stronger, weaker):
                yield from _beaten(weaker, stronger)
    own = {(row.dataset, row.model, row.attack, row.epsilon): row for row in rows}
    for row in transfers:
        white_box = own.get((row.dataset, row.target, row.attack, row.epsilon))
        if row.source != row.target and white_box is not None and row.status == "done":
            yield from _beaten_by_transfer(row, white_box)


def _should_find_more(stronger: Evaluation, weaker: Evaluation) -> bool:
    def key(row: Evaluation) -> tuple[object, ...]:
        return (row.dataset, row.model, row.epsilon, row.norm)

    high, low = STRENGTH.get(stronger.algorithm), STRENGTH.get(weaker.algorithm)
    if key(stronger) != key(weaker) or high is None or low is None:
        return False
    if stronger.clip and not weaker.clip:  # the weaker attack is allowed more
        return False
    freer = bool(weaker.clip and not stronger.clip)
    return high > low or (freer and stronger.algorithm == weaker.algorithm)


def _beaten(weaker: Evaluation, stronger: Evaluation) -> Iterator[str]:
    low, high = weaker.adversarial_error_low, stronger.adversarial_error_high
    if low is not None and high is not None and low > high:
        yield (
            f"{weaker.dataset}, {weaker.model}, epsilon {weaker.epsilon}: {weaker.attack} finds "
            f"more errors than {stronger.attack}, {MASKING}"
        )


def _beaten_by_transfer(row: Transfer, white_box: Evaluation) -> Iterator[str]:
    low, high = row.error_low, white_box.adversarial_error_high
    if low is not None and high is not None and low > high:
        yield (
            f"{row.dataset}, {row.target}, {row.attack} at epsilon {row.epsilon}: examples made on "
            f"{row.source} find more errors than its own, {MASKING}"
        )
