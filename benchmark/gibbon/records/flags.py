"""Reliability flags: signs that a number is better than the model or the attack behind it.

Each flag is stored as a short sentence.  Flags change no number; reports print them first.
The signs of masked gradients are those of A. Athalye, N. Carlini and D. Wagner, "Obfuscated
gradients give a false sense of security", ICML 2018, section 3.1.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gibbon.core.threat import PIXEL_STEPS, Norm, ThreatModel, Verdict
from gibbon.records.run import Evaluation, RunRecord, Transfer

# Below this share, examples with zero gradients can't change a rate by more than its interval.
ZERO_GRADIENT_SHARE = 0.01

# The rank of our attacks by strength: a stronger attack should not find fewer errors.  Attacks of
# other libraries are not ranked.
STRENGTH = {"noise-uniform": 0, "noise-sign": 0, "fgsm-naive": 1, "fgsm": 1, "pgd": 2}
MASKING = "a sign of masked gradients, or of a loss that does not follow the error"

WORDS = {
    Verdict.NOT_FINITE: "not finite",
    Verdict.OUT_OF_BOUNDS: "out of bounds",
    Verdict.OUT_OF_BUDGET: "out of budget",
}


@dataclass(frozen=True)
class Flag:
    """A flag of a stored run.

    Args:
        finding: the sentence, without the reason that all signs of masked gradients share.
        dataset, model: of the numbers that it is about; empty if it is not about one model.
        masking: whether it is a sign of masked gradients.
    """

    finding: str
    dataset: str
    model: str
    masking: bool


def read_flags(record: RunRecord) -> tuple[Flag, ...]:
    """Returns the flags of a run, read from the sentences that are stored."""
    models = {
        (f"{experiment.dataset.name}, {model.name}{mark}"): (experiment.dataset.name, model.name)
        for experiment in record.suite.experiments
        for model in experiment.models
        for mark in (", ", ":")
    }
    flags = []
    for sentence in record.flags:
        starts = (names for start, names in models.items() if sentence.startswith(start))
        finding = sentence.removesuffix(f", {MASKING}")
        flags.append(Flag(finding, *next(starts, ("", "")), masking=finding != sentence))
    return tuple(flags)


def candidate_flags(
    verdict: NDArray[np.int64],
    distance: NDArray[np.floating],
    *,
    epsilon: float,
    zero_gradient: NDArray[np.bool_] | None,
    done: NDArray[np.bool_],
) -> Iterator[str]:
    """Yields the flags of one cell's candidates.

    ``done`` marks the examples for which the attack may return its input unchanged.
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
    """Yields the budgets of an attack that are as wide as the inputs' bounds.

    Under such a budget every input is within reach of every other.  The usual reason is a number of
    pixel steps written without the 255.
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
    """Yields signs of masked gradients: stronger attacks that find fewer errors than weaker ones.

    An attack is stronger if its rank is higher, or if it has the same algorithm under a threat
    model that allows more.  Intervals must not overlap, so that sampling raises no flag.
    """
    rows = [row for row in evaluations if row.status == "done" and not row.unattacked]
    for weaker in rows:
        for stronger in rows:
            if _should_find_more(stronger, weaker) and _beaten(
                weaker.adversarial_error_low, stronger.adversarial_error_high
            ):
                yield (
                    f"{weaker.dataset}, {weaker.model}, epsilon {weaker.epsilon}: {weaker.attack} "
                    f"finds more errors than {stronger.attack}, {MASKING}"
                )
    own = {(row.dataset, row.model, row.attack, row.epsilon): row for row in rows}
    for row in transfers:
        white_box = own.get((row.dataset, row.target, row.attack, row.epsilon))
        if row.source == row.target or white_box is None or row.status != "done":
            continue
        if _beaten(row.error_low, white_box.adversarial_error_high):
            yield (
                f"{row.dataset}, {row.target}, {row.attack} at epsilon {row.epsilon}: examples "
                f"made on {row.source} find more errors than its own, {MASKING}"
            )


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


def _beaten(low: float | None, high: float | None) -> bool:
    """Returns whether an interval from ``low`` lies above one up to ``high``."""
    return low is not None and high is not None and low > high
