"""The table of the claims of a suite: two measures, the test of their order, and a verdict."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from gibbon.records.flags import kinds_text
from gibbon.records.tested_claims import ClaimTest
from gibbon.report.content.parts.footnotes import Footnotes
from gibbon.report.content.parts.layout import (
    NOTHING,
    ChapterKind,
    Column,
    Row,
    Table,
    TableCell,
    cells,
    columns,
)
from gibbon.report.content.parts.lookup import RunLookup
from gibbon.report.content.parts.number_format import (
    MEASURES,
    as_published,
    p_number,
    rate_cell,
    state_cell,
)
from gibbon.report.content.published_numbers.over_trainings import OverTrainings
from gibbon.report.content.published_numbers.verdicts import claim_verdict, measured_side
from gibbon.specs.base import UNATTACKED
from gibbon.specs.claims import Claim, MeasuredQuantity

_SIGNS = {"lower": "<", "higher": ">"}
_NOTES = (
    "First and second: means over the trainings of the model; the interval in brackets covers the "
    "examples, and the trainings if there are several. Difference: first minus second, in "
    "percentage points, with its 95 % interval.",
    "Test: two-sided, of no difference; p is corrected by Holm's procedure over the claims of the "
    "suite. One training on each side and errors of the same examples: McNemar's exact test. Else "
    "a t-test whose variance is that over examples and, with several trainings, over trainings. "
    "With one training it is about this one network, not about its recipe.",
    "Verdict: reproduced if p is below 5 % and the order is as claimed, refuted if it is below 5 % "
    "and the order is the other way round, undecided if it is not.",
)


def claims_table(results: RunLookup, claims: Iterable[Claim]) -> Table | None:
    """Returns a table of some claims of the suite, or None if there are none."""
    notes = Footnotes()
    rows = tuple(_row(claim, results, notes) for claim in claims)
    if not rows:
        return None
    return Table(
        title="Claims",
        columns=(
            Column("§"),
            *columns("Claim", "Compared", align="left"),
            *columns("First", "Second", "Difference"),
            *columns("Trainings", level=1),
            Column("Test", "left", level=1),
            Column("p"),
            *columns("Verdict", "Note", align="left"),
        ),
        rows=rows,
        notes=notes.lines(),
    )


def _claims_tables(results: RunLookup) -> Iterable[Table]:
    table = claims_table(results, results.record.suite.claims)
    return () if table is None else (table,)


CLAIMS = ChapterKind("Claims", _claims_tables, _NOTES)


def _row(claim: Claim, results: RunLookup, notes: Footnotes) -> Row:
    found = claim_verdict(claim, results)
    tested = results.claims.get(claim.id)
    return cells(
        claim.section,
        claim.text,
        compared_in_words(claim),
        *_sides(claim, results),
        *(cells(NOTHING, NOTHING, "", NOTHING) if tested is None else _test_cells(tested)),
        found.cell(),
        notes.marks(claim.note, found.why),
    )


def _sides(claim: Claim, results: RunLookup) -> Row:
    first = _side(claim.first, measured_side(claim.first, results))
    if claim.second is not None:
        return first, _side(claim.second, measured_side(claim.second, results))
    constant = claim.constant or 0.0
    return first, TableCell(as_published(constant), value=100 * constant)


def _test_cells(tested: ClaimTest) -> Row:
    trainings = (tested.first_trainings, tested.second_trainings)
    return cells(
        _difference(tested.difference, tested.difference_low, tested.difference_high),
        " and ".join(str(each) for each in trainings if each),
        tested.test,
        TableCell(p_number(tested.p_value), value=tested.p_value),
    )


def _side(quantity: MeasuredQuantity, found: OverTrainings) -> TableCell:
    if found.measured.state != "done":
        return state_cell(found.measured.state)
    return rate_cell(found.measured, clean=quantity.measure == "clean_error")


def _difference(value: float, low: float, high: float) -> TableCell:
    places = 1 if min(abs(low), abs(high), abs(value)) >= 0.01 else 2
    signed = (f"{100 * each:+.{places}f}".replace("-", "−") for each in (value, low, high))
    text, start, end = signed
    return TableCell(text, f"[{start} to {end}]", value=100 * value)


def tested_claims(results: RunLookup) -> Iterator[ClaimTest]:
    """Yields the claims of a run that were tested, with the kinds of flags that affect them."""
    for claim in results.record.suite.claims:
        tested = results.claims.get(claim.id)
        if tested is not None:
            sides = [claim.first, *([] if claim.second is None else [claim.second])]
            found = (measured_side(side, results).measured.flags for side in sides)
            flags = tuple(dict.fromkeys(flag for each in found for flag in each))
            yield tested.model_copy(update={"flags": kinds_text(flags)})


def compared_in_words(claim: Claim) -> str:
    """Returns both sides of a claim in words, with the sign of the claimed order."""
    second = (
        as_published(claim.constant or 0.0)
        if claim.second is None
        else quantity_in_words(claim.second)
    )
    return f"{quantity_in_words(claim.first)} {_SIGNS[claim.order]} {second}"


def quantity_in_words(quantity: MeasuredQuantity) -> str:
    """Returns a measure of a model in words."""
    models = quantity.model
    if quantity.target is not None:
        models += f" → {quantity.target}"
    if quantity.compared_with is not None:
        models += f", {quantity.compared_with}"
    attack = "" if quantity.attack == UNATTACKED else f", {quantity.attack} at {quantity.epsilon}"
    return f"{MEASURES[quantity.measure]} of {models} ({quantity.dataset}{attack})"
