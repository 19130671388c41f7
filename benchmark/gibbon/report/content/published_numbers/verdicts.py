"""Verdicts on published numbers and on claims, from what a run measured.

A published number with a tolerance is ``reproduced`` if the number measured under one of its
attacks lies within the tolerance, ``differs`` otherwise; ``refuted`` if the effect that it belongs
to is tested and found to be the other way round, or if it is a lower bound and the whole interval
of every training is below it; ``failed``; or ``not run``.  With several trainings the mean is
compared, or the range, if the row says so (`gibbon.specs.published.PublishedRow.judged_by`).

No row gets a verdict on fewer than 1,000 examples: it is ``withheld``.

A row that is a bound of an error is compared with the strongest of its attacks: ``above the
certified error``, if that finds more errors than an upper bound allows; ``weaker than published``,
if it finds fewer than a published attack; else ``between``.  The tolerance is that of the published
number's rounding.  If only a sample of the dataset was evaluated, a difference counts beyond the
interval of the measured number.

A claim is ``reproduced`` if the test of its order is significant and the order is as claimed,
``refuted`` if it is significant and the other way round, ``undecided`` if it is not significant.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from gibbon.records.tested_claims import ClaimTest
from gibbon.report.content.parts.layout import CellKind, TableCell
from gibbon.report.content.parts.lookup import Measured, RunLookup
from gibbon.report.content.parts.number_format import p_text
from gibbon.report.content.published_numbers.over_trainings import OverTrainings
from gibbon.specs.claims import Claim, MeasuredQuantity
from gibbon.specs.published import PublishedRow

EMPTY = "measured, but there are no examples to take the share or the mean of"
FEWEST: Final = 1000  # examples for a verdict; the interval of a rate is then at most ±3.1 points
ROUNDING = 1e-9  # of a difference of rates: far below one example of any dataset

VerdictWord = Literal[
    "reproduced",
    "differs",
    "refuted",
    "undecided",
    "failed",
    "not run",
    "withheld",
    "between",
    "above the certified error",
    "weaker than published",
]

# How a verdict is marked, by its word; the order is that of counts of verdicts.
KINDS: Final[dict[VerdictWord, CellKind]] = {
    "reproduced": "reproduced",
    "between": "reproduced",
    "differs": "differs",
    "undecided": "differs",
    "weaker than published": "differs",
    "refuted": "failed",
    "above the certified error": "failed",
    "failed": "failed",
    "not run": "not run",
    "withheld": "not run",
}


@dataclass(frozen=True)
class PublishedVerdict:
    """The verdict on a published number or a claim.

    Args:
        word: the verdict.
        attack: the attack that reproduced the number, or the strongest one for a bound; empty
            otherwise.
        why: the reason for a difference, the test that refutes an effect, or what a row that was
            not run needs; may be empty.
    """

    word: VerdictWord
    attack: str = ""
    why: str = ""

    def cell(self, *, main: str = "") -> TableCell:
        """Returns the word as a cell, with the attack if that is not the ``main`` one."""
        other = self.attack not in ("", main)
        return TableCell(self.word, f"({self.attack})" if other else "", kind=KINDS[self.word])


def verdict(row: PublishedRow, results: RunLookup) -> PublishedVerdict | None:
    """Returns the verdict on a row, or None if it has no tolerance and is no bound."""
    if row.value is None:
        return PublishedVerdict("not run", why=row.needs)
    if row.tolerance is None and row.bound is None:
        return None
    found = [(attack, OverTrainings.of(row, results, attack)) for attack in row.attack]
    measured = [(attack, each) for attack, each in found if each.measured.rate is not None]
    if not measured:
        states = {each.measured.state for _, each in found}
        if "failed" in states:
            return PublishedVerdict("failed")
        # Run, but without examples to count, such as the confidence of a model without mistakes.
        if "done" in states:
            return PublishedVerdict("differs", why=EMPTY)
        return PublishedVerdict("not run", why=row.needs)
    card = results.record.dataset_cards.get(row.dataset)
    if card is not None and card.examples < FEWEST:
        few = f"on {card.examples:,} examples; a verdict needs {FEWEST:,} or more"
        return PublishedVerdict("withheld", why=few)
    if row.bound is not None:
        return _bound_verdict(row, results)
    refuted = _refuted(row, results)
    if refuted is not None:
        return refuted
    for attack, each in measured:
        if _meets(row, each):
            return PublishedVerdict("reproduced", attack)
    if row.above and all(_is_below(row, results, attack) for attack, _ in measured):
        below = f"the whole 95 % interval of every training is below {100 * row.value:g} %"
        return PublishedVerdict("refuted", why="; ".join(filter(None, (below, row.reason))))
    return PublishedVerdict("differs", why=row.reason)


def claim_verdict(claim: Claim, results: RunLookup) -> PublishedVerdict:
    """Returns the verdict on a claim."""
    tested = results.claims.get(claim.id)
    if tested is None:
        sides = [claim.first, *([] if claim.second is None else [claim.second])]
        states = {measured_side(side, results).measured.state for side in sides}
        if "failed" in states:
            return PublishedVerdict("failed")
        if states == {"done"}:
            return PublishedVerdict("undecided", why=EMPTY)
        return PublishedVerdict("not run", why=claim.needs)
    if tested.holds is None:
        return PublishedVerdict("undecided")
    return PublishedVerdict("reproduced" if tested.holds else "refuted")


def measured_side(quantity: MeasuredQuantity, results: RunLookup) -> OverTrainings:
    """Returns one side of a claim, over the trainings of its model."""
    named = quantity.model_dump() | {"attack": (quantity.attack,)}
    row = PublishedRow.model_validate({**named, "value": 0.0, "section": "claim", "bound": None})
    return OverTrainings.of(row, results, quantity.attack)


def order_in_words(claim: Claim, tested: ClaimTest) -> str:
    """Returns what the test of a claim found, for a sentence."""
    points = 100 * tested.difference
    ends = f"{100 * tested.difference_low:+.2f} to {100 * tested.difference_high:+.2f}"
    return (
        f"{claim.text}: {points:+.2f} points [{ends}], {tested.test}, {p_text(tested.p_value)}"
    ).replace("-", "−")


def _refuted(row: PublishedRow, results: RunLookup) -> PublishedVerdict | None:
    """Returns the verdict on a row whose effect is the other way round; None if it is not."""
    claims = {claim.id: claim for claim in results.record.suite.claims}
    claim = claims.get(row.effect or "")
    tested = results.claims.get(row.effect or "")
    if claim is None or tested is None or tested.holds is not False:
        return None
    why = f"the effect is the other way round ({order_in_words(claim, tested)})"
    return PublishedVerdict("refuted", why="; ".join(filter(None, (why, row.reason))))


def _is_below(row: PublishedRow, results: RunLookup, attack: str) -> bool:
    """Returns whether the interval of every training is below a number that is a lower bound."""
    found = [each for each in results.trainings(row, attack) if each.rate is not None]
    return bool(found) and all(_upper(each) < (row.value or 0.0) - ROUNDING for each in found)


def _upper(measured: Measured) -> float:
    return measured.ends[1]


def _bound_verdict(row: PublishedRow, results: RunLookup) -> PublishedVerdict:
    """Returns the verdict on a bound that was measured, by the strongest of its attacks."""
    found = [(each, OverTrainings.of(row, results, each).measured) for each in row.attack]
    attack, strongest = max(found, key=lambda each: -1.0 if each[1].rate is None else each[1].rate)
    card = results.record.dataset_cards.get(row.dataset)
    whole = card is None or card.examples == card.of
    low, high = (strongest.rate or 0.0,) * 2 if whole else strongest.ends
    value, slack = row.value or 0.0, (row.tolerance or 0.0) + ROUNDING
    if row.bound == "upper" and low > value + slack:
        return PublishedVerdict("above the certified error", attack, row.reason)
    if row.bound == "lower" and high < value - slack:
        return PublishedVerdict("weaker than published", attack, row.reason)
    return PublishedVerdict("between", attack)


def _meets(row: PublishedRow, found: OverTrainings) -> bool:
    distance = found.distance(row.value or 0.0, judged_by=row.judged_by)
    if row.value is None or row.tolerance is None or distance is None:
        return False
    if row.above:
        return (found.measured.rate or 0.0) >= row.value - row.tolerance - ROUNDING
    return distance <= row.tolerance + ROUNDING
