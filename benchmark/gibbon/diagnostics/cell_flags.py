"""Flags of one cell, from the verdicts and distances of its candidates, and from its path.

The signs of masked gradients are those of A. Athalye, N. Carlini and D. Wagner, "Obfuscated
gradients give a false sense of security", ICML 2018, section 3.1.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from gibbon.core.threat import Verdict
from gibbon.diagnostics.attacked_cell import AttackedCell
from gibbon.diagnostics.effort_flags import effort_flags
from gibbon.diagnostics.enough_examples import severity_by_count
from gibbon.diagnostics.path_flags import path_flags, searched_in_vain
from gibbon.diagnostics.perturbed_share import partial_flags
from gibbon.records.flag_share import FlagShare
from gibbon.records.flags import Flag
from gibbon.records.outcomes import Outcome

# Below this share, examples with zero gradients can't change a rate by more than its interval.
ZERO_GRADIENT_SHARE = 0.01
UNCHANGED_SHARE, UNCHANGED_LEAST = 0.01, 2

WORDS = {
    Verdict.NOT_FINITE: "not finite",
    Verdict.OUT_OF_BOUNDS: "out of bounds",
    Verdict.OUT_OF_BUDGET: "out of budget",
}


def cell_flags(cell: AttackedCell) -> Iterator[Flag]:
    """Yields the flags of an attacked cell."""
    outcome = cell.outcome
    yield from _invalid(cell)
    yield from _unchanged(cell)
    zero = outcome.zero_gradient
    if zero is not None and cell.clean is not None:
        zero = zero & cell.right  # no attack needs a gradient of what is misclassified already
    if zero is not None and np.mean(zero) >= ZERO_GRADIENT_SHARE:
        share = FlagShare(count=int(np.count_nonzero(zero)), of=cell.count)
        severity, few = severity_by_count(share.count, share.of)
        sentence = f"the gradient is zero in every coordinate for {share} examples{few}"
        yield cell.flag("zero-gradient", severity=severity, share=share, sentence=sentence)
    yield from path_flags(cell)
    yield from effort_flags(cell)
    yield from partial_flags(cell)


def _invalid(cell: AttackedCell) -> Iterator[Flag]:
    verdict, distance, total = cell.outcome.verdict, cell.outcome.distance, cell.count
    for kind, words in WORDS.items():
        of_kind = verdict == kind
        count = int(np.count_nonzero(of_kind))
        if not count:
            continue
        share = FlagShare(count=count, of=total)
        figure, far = str(share), ""
        if kind is Verdict.OUT_OF_BUDGET and cell.epsilon:
            times = f"{float(distance[of_kind].max()) / cell.epsilon:.3g}"
            figure, far = f"{figure}, {times} epsilon", f" (up to {times} epsilon)"
        yield cell.flag(
            "invalid-candidates",
            figure=figure,
            share=share,
            sentence=f"{count} of {total} candidates {words}{far}: not counted as adversarial",
        )


def _unchanged(cell: AttackedCell) -> Iterator[Flag]:
    """Yields the flag of inputs that were returned unchanged, all or a share of them.

    An attack may return the input where its search found nothing, if the search visited other
    points; if it returned nothing else, a reader should know.
    """
    outcome, total = cell.outcome, cell.count
    unchanged = (outcome.distance == 0) & ~_may_stay(outcome)
    count = int(unchanged.sum())
    if not cell.epsilon or not count or not cell.steady:  # the input may have been misclassified
        return
    in_vain = searched_in_vain(cell)
    if np.all(outcome.distance == 0):
        known = bool(np.all(in_vain[unchanged]))
        severity, few = severity_by_count(count, total)
        yield cell.flag(
            "inputs-unchanged",
            severity="note" if known else severity,
            share=FlagShare(count=total, of=total),
            sentence="the attack returned its inputs unchanged"
            + (", and passed no adversarial example" if known else few),
        )
        return
    unexplained = unchanged & ~in_vain
    if outcome.zero_gradient is not None:  # which has a flag of its own
        unexplained &= ~outcome.zero_gradient
    count = int(unexplained.sum())
    if count >= max(UNCHANGED_LEAST, UNCHANGED_SHARE * total):
        severity, few = severity_by_count(count, total)
        yield cell.flag(
            "inputs-unchanged",
            severity=severity,
            share=FlagShare(count=count, of=total),
            sentence=f"the attack returned {count} of {total} inputs unchanged{few}",
        )


def _may_stay(outcome: Outcome) -> NDArray[np.bool_]:
    """Returns the examples for which an attack may return its input unchanged.

    These are examples of which the input, or another try, is misclassified; a search that found
    points beyond epsilon may do so for all examples.
    """
    done = outcome.any_misclassified
    if outcome.nearest is not None and np.any(outcome.nearest > 0):
        return np.ones_like(done)
    return done
