"""The table of published numbers, each with the measured number and a verdict.

A row with a tolerance gets a verdict: ``reproduced`` if a number measured under one of its attacks
lies within the tolerance; ``differs``, with the row's reason; ``failed``; or ``not run``, with what
it needs.  A row that was run but had no examples to count differs.

A row that is a bound is compared with the strongest of its attacks: ``above the certified error``,
if that finds more errors than an upper bound allows; ``weaker than published``, if it finds fewer
than a published attack; else ``between``.  The tolerance is that of the published number's
rounding.  If only a sample of the dataset was evaluated, a difference counts beyond the interval of
the measured number.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from gibbon.report.content.layout import (
    NOTHING,
    ChapterKind,
    Column,
    Kind,
    Row,
    Table,
    TableCell,
    cells,
)
from gibbon.report.content.lookup import Measured, RunLookup
from gibbon.report.content.number_format import (
    MEASURES,
    as_published,
    count,
    count_of,
    interval,
    percent,
    points,
    state_cell,
)
from gibbon.specs.base import UNATTACKED
from gibbon.specs.published import PublishedRow

EMPTY = "measured, but there are no examples to take the share or the mean of"
ROUNDING = 1e-9  # of a difference of rates: far below one example of any dataset


@dataclass(frozen=True)
class PublishedVerdict:
    """The verdict on a published number.

    Args:
        word: the verdict.
        attack: the attack that reproduced the number, or the strongest one for a bound; empty
            otherwise.
        why: the reason for a difference, or what a row that was not run needs; may be empty.
    """

    word: Literal[
        "reproduced",
        "differs",
        "failed",
        "not run",
        "between",
        "above the certified error",
        "weaker than published",
    ]
    attack: str = ""
    why: str = ""


# How a verdict is marked, by its word.
_KINDS: Final[dict[str, Kind]] = {
    "reproduced": "reproduced",
    "between": "reproduced",
    "differs": "differs",
    "weaker than published": "differs",
    "above the certified error": "failed",
    "failed": "failed",
    "not run": "not run",
}


def verdict(row: PublishedRow, results: RunLookup) -> PublishedVerdict | None:
    """Returns the verdict on a row, or None if it has no tolerance and is no bound."""
    if row.value is None:
        return PublishedVerdict("not run", why=row.needs)
    if row.tolerance is None and row.bound is None:
        return None
    found = [(attack, results.published(row, attack)) for attack in row.attack]
    measured = [(attack, each.rate) for attack, each in found if each.rate is not None]
    if not measured:
        states = {each.state for _, each in found}
        if "failed" in states:
            return PublishedVerdict("failed")
        # Run, but without examples to count, such as the confidence of a model without mistakes.
        if "done" in states:
            return PublishedVerdict("differs", why=EMPTY)
        return PublishedVerdict("not run", why=row.needs)
    if row.bound is not None:
        return _bound_verdict(row, results)
    for attack, rate in measured:
        if _meets(row, rate):
            return PublishedVerdict("reproduced", attack)
    return PublishedVerdict("differs", why=row.reason)


def _bound_verdict(row: PublishedRow, results: RunLookup) -> PublishedVerdict:
    """Returns the verdict on a bound that was measured, by the strongest of its attacks."""
    found = [(each, results.published(row, each)) for each in row.attack]
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


def _meets(row: PublishedRow, rate: float) -> bool:
    if row.value is None or row.tolerance is None:
        return False
    below = row.value - row.tolerance - ROUNDING
    return rate >= below if row.above else below <= rate <= row.value + row.tolerance + ROUNDING


def paper_table(results: RunLookup) -> Table | None:
    """Returns the published rows of the suite next to the measured numbers, if it has any.

    A row has one or more attacks.  The first is the main one; the others have their own columns,
    after the verdict.
    """
    rows = results.record.suite.published
    if not rows:
        return None
    several = len({row.dataset for row in rows}) > 1
    others = tuple(dict.fromkeys(attack for row in rows for attack in row.attack[1:]))
    main = _main_attack(rows)
    notes = _Footnotes()
    verdicts = [verdict(row, results) for row in rows]
    judged = any(verdicts)
    lines = tuple(
        (
            *cells(
                row.section,
                *([row.dataset] if several else []),
                models_in_words(row),
                measure_in_words(row),
                row.attack[0],
                NOTHING if row.attack[0] == UNATTACKED else row.epsilon,
                _published(row),
            ),
            *_measured_cells(row, results.published(row, row.attack[0])),
            *(_verdict_cells(row, found) if judged else ()),
            TableCell(notes.marks(row.note, found.why if found else "")),
            *(cell for other in others for cell in _other_cells(row, results, other)),
        )
        for row, found in zip(rows, verdicts, strict=True)
    )
    return Table(
        title="Published and measured",
        columns=(
            Column("§"),
            *([Column("Dataset", "left", level=2)] if several else []),
            Column("Model", "left"),
            Column("Measure", "left"),
            Column("Attack", "left", level=2),
            Column("ε", level=2),
            Column("Published"),
            *_measured_columns("Measured" if main in ("", UNATTACKED) else f"Measured ({main})"),
            *((Column("Tolerance", level=2), Column("Verdict", "left")) if judged else ()),
            Column("Note", "left"),
            *(column for other in others for column in _measured_columns(other, level=1)),
        ),
        rows=lines,
        notes=(*_reading(results, rows, others, judged=judged), *notes.lines()),
    )


def _published_tables(results: RunLookup) -> tuple[Table, ...]:
    table = paper_table(results)
    return () if table is None else (table,)


PAPER = ChapterKind("Published and measured", _published_tables)


def _main_attack(rows: tuple[PublishedRow, ...]) -> str:
    """Returns the main attack of all rows but unattacked ones; empty if there are several."""
    mains = {row.attack[0] for row in rows} - {UNATTACKED} or {UNATTACKED}
    return mains.pop() if len(mains) == 1 else ""


def _measured_columns(header: str, *, level: Literal[0, 1] = 0) -> tuple[Column, ...]:
    return (
        Column(header, level=level),
        Column("Δ points", level=level),
        Column("95 % interval", level=1),
        Column("Count", level=2),
    )


def _published(row: PublishedRow) -> TableCell:
    if row.value is None:
        return TableCell(row.text)
    sign = {"upper": "≤ ", "lower": "≥ ", None: ">" if row.above else ""}[row.bound]
    return TableCell(f"{sign}{as_published(row.value)}", value=100 * row.value)


def _verdict_cells(
    row: PublishedRow, found: PublishedVerdict | None
) -> tuple[TableCell, TableCell]:
    tolerance = NOTHING
    if row.tolerance is not None:
        margin = round(100 * row.tolerance, 6)
        tolerance = TableCell(f"±{margin:g}", value=margin)
    if found is None:
        return tolerance, TableCell("")
    other = found.attack not in ("", row.attack[0])
    kind = _KINDS[found.word]
    return tolerance, TableCell(found.word, f"({found.attack})" if other else "", kind=kind)


def _measured_cells(row: PublishedRow, measured: Measured) -> Row:
    if measured.state != "done":
        return cells(state_cell(measured.state), NOTHING, NOTHING, NOTHING)
    clean = row.measure == "clean_error"
    counts = count_of(measured.part, measured.whole)
    if measured.part is None and measured.whole is not None:
        counts = TableCell(f"mean of {count(measured.whole)}", value=measured.whole)
    return cells(
        percent(measured.rate, clean=clean).flagged(measured.flags),
        NOTHING if row.value is None else points(measured.rate, row.value, clean=clean),
        interval(measured, clean=clean),
        counts,
    )


def _other_cells(row: PublishedRow, results: RunLookup, attack: str) -> Row:
    if attack not in row.attack[1:]:
        return cells("", "", "", "")
    return _measured_cells(row, results.published(row, attack))


def models_in_words(row: PublishedRow) -> str:
    """Returns the model of a row, with the target or targets that its examples are scored on."""
    if row.target is None:
        return row.model
    if row.compared_with is None:
        return f"{row.model} → {row.target}"
    return f"{row.model} → {row.target}, {row.compared_with}"


def measure_in_words(row: PublishedRow) -> str:
    """Returns the measure of a row in words."""
    if row.compared_with is not None:
        return "same wrong class in both targets, given both misclassified"
    if row.measure == "mean_confidence" and row.attack[0] == UNATTACKED:
        return "mean confidence, clean"
    if row.of_class is not None:
        return f"{MEASURES[row.measure]}, class {row.of_class}"
    return MEASURES[row.measure]


def _reading(
    results: RunLookup, rows: tuple[PublishedRow, ...], others: tuple[str, ...], *, judged: bool
) -> Iterator[str]:
    source = results.record.suite.source
    if source:
        yield f"Published: {source}."
    yield (
        "Δ: measured minus published, in percentage points. Intervals: Wilson, 95 %. Count: the "
        "examples counted, of those that the rate is a share of; a confidence is a mean over its "
        "count and has no such interval."
    )
    if others:
        main = _main_attack(rows) or "the main attack"
        yield (
            f"The first measured column is under {main} (unattacked if the attack is "
            f"`{UNATTACKED}`); the columns headed {', '.join(others)} repeat the measurement under "
            "that attack."
        )
    if judged:
        yield (
            "Verdict: reproduced if the measured value lies within the row's tolerance, in "
            "points, of the published one, under the first attack or the one that is named; the "
            "note gives the reason for a difference, or what a row that was not run needs."
        )
    if any(row.bound for row in rows):
        yield (
            "≤: no attack may find more errors, as with a certified error. ≥: an attack that was "
            "published finds as many. Between: the strongest attack of the row neither exceeds "
            "the one nor misses the other."
        )
    if any(row.target for row in rows):
        yield "a → b: examples made on a, scored on b; a is the source, b the target."


class _Footnotes:
    """The notes under a table, each with one mark, however often it is referred to."""

    def __init__(self) -> None:
        self._marks: dict[str, str] = {}

    def marks(self, *notes: str) -> str:
        given = [note for note in notes if note]
        return " ".join(self._marks.setdefault(n, f"({len(self._marks) + 1})") for n in given)

    def lines(self) -> tuple[str, ...]:
        return tuple(f"{mark} {note}" for note, mark in self._marks.items())
