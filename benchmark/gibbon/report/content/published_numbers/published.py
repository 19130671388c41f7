"""The table of published numbers, each with the measured number and a verdict.

`gibbon.report.content.published_numbers.verdicts` says what the words of the verdict mean.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Final, Literal

from gibbon.report.content.parts.footnotes import Footnotes
from gibbon.report.content.parts.layout import (
    NOTHING,
    ChapterKind,
    Column,
    Row,
    Table,
    TableCell,
    cells,
)
from gibbon.report.content.parts.lookup import RunLookup
from gibbon.report.content.parts.number_format import (
    MEASURES,
    as_published,
    count,
    count_of,
    interval,
    percent,
    points,
    state_cell,
)
from gibbon.report.content.published_numbers.over_trainings import OverTrainings
from gibbon.report.content.published_numbers.verdicts import FEWEST, PublishedVerdict, verdict
from gibbon.specs.base import UNATTACKED
from gibbon.specs.published import PublishedRow

_OVER_TRAININGS: Final = "Over trainings"


def paper_table(results: RunLookup, ids: Collection[str] | None = None) -> Table | None:
    """Returns the published rows of the suite next to the measured numbers, if it has any.

    Only the rows with these ids, if they are given.
    A row has one or more attacks.  The first is the main one; the others have their own columns,
    after the verdict.
    """
    rows = tuple(row for row in results.record.suite.published if ids is None or row.id in ids)
    if not rows:
        return None
    several = len({row.dataset for row in rows}) > 1
    others = tuple(dict.fromkeys(attack for row in rows for attack in row.attack[1:]))
    main = _main_attack(rows)
    notes = Footnotes()
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
            *_with_count(row, OverTrainings.of(row, results, row.attack[0])),
            *(_verdict_cells(row, found) if judged else ()),
            TableCell(notes.marks(row.note, found.why if found else "")),
            *(cell for other in others for cell in _other_cells(row, results, other)),
        )
        for row, found in zip(rows, verdicts, strict=True)
    )
    table = Table(
        title="Published and measured",
        columns=(
            Column("§"),
            *([Column("Dataset", "left", level=2)] if several else []),
            Column("Model", "left"),
            Column("Measure", "left"),
            Column("Attack", "left", level=2),
            Column("ε", level=2),
            Column("Published"),
            *_main_columns("Measured" if main in ("", UNATTACKED) else f"Measured ({main})"),
            *((Column("Tolerance", level=2), Column("Verdict", "left")) if judged else ()),
            Column("Note", "left"),
            *(column for other in others for column in _measured_columns(other, level=1)),
        ),
        rows=lines,
        notes=(*_reading(results, rows, others, judged=judged), *notes.lines()),
    )
    return table.without_empty(_OVER_TRAININGS)


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
        Column(_OVER_TRAININGS, level=1),
        Column("Δ points", level=level),
        Column("Δ / spread", level=1),
        Column("95 % interval", level=1),
        Column("Count", level=2),
    )


def _main_columns(header: str) -> tuple[Column, ...]:
    measured, *others = _measured_columns(header)
    return measured, Column("n"), *others


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
    return tolerance, TableCell("") if found is None else found.cell(main=row.attack[0])


def _with_count(row: PublishedRow, found: OverTrainings) -> Row:
    """Returns the cells of the main attack, with the number of trainings after the measured one."""
    measured, *others = _measured_cells(row, found)
    return measured, count(found.count or None), *others


def _measured_cells(row: PublishedRow, found: OverTrainings) -> Row:
    measured = found.measured
    if measured.state != "done":
        return cells(state_cell(measured.state), "", NOTHING, NOTHING, NOTHING, NOTHING)
    clean = row.measure == "clean_error"
    counts = count_of(measured.part, measured.whole)
    if measured.part is None and measured.whole is not None:
        counts = TableCell(f"mean of {count(measured.whole)}", value=measured.whole)
    return cells(
        percent(measured.rate, clean=clean).flagged(measured.flags),
        found.spread_cell(clean=clean),
        NOTHING if row.value is None else points(measured.rate, row.value, clean=clean),
        NOTHING if row.value is None else found.difference_cell(row.value),
        interval(measured, clean=clean),
        counts,
    )


def _other_cells(row: PublishedRow, results: RunLookup, attack: str) -> Row:
    if attack not in row.attack[1:]:
        return cells("", "", "", "", "", "")
    return _measured_cells(row, OverTrainings.of(row, results, attack))


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
        "Δ: measured minus published, in percentage points. Intervals, 95 %: Wilson's for rates, "
        "BCa bootstrap for confidences. Count: the examples counted, of those that the rate is a "
        "share of; a confidence is a mean over its count."
    )
    several = any(OverTrainings.of(row, results, a).count > 1 for row in rows for a in row.attack)
    yield (
        "n: the number of trainings, of which the measured number is the mean; with one, the "
        "verdict is about this one network. Δ / spread: Δ in standard deviations over trainings "
        "(sd); with one training, in half-widths of its interval, which is about the examples "
        "alone (hw)."
    )
    if several:
        yield (
            "Over trainings: standard deviation, with n − 1, and range; the interval of a mean "
            "over trainings covers examples and trainings."
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
            "note gives the reason for a difference, or what a row that was not run needs. No "
            f"verdict is given on fewer than {FEWEST:,} examples (withheld)."
        )
    if judged and any(row.judged_by == "range" for row in rows):
        yield (
            "The agreement of wrong classes depends on the network that the examples are made on: "
            "with several trainings, the verdict is about the published number's distance from "
            "their range."
        )
    if judged and (results.record.suite.claims or any(row.above for row in rows)):
        yield (
            "Refuted: the effect that the number belongs to is significantly the other way round "
            "(see the claims), or, of a number that is a lower bound (>), the whole interval of "
            "every training is below it."
        )
    if any(row.bound for row in rows):
        yield (
            "≤: no attack may find more errors, as with a certified error. ≥: an attack that was "
            "published finds as many. Between: the strongest attack of the row neither exceeds "
            "the one nor misses the other."
        )
    if any(row.target for row in rows):
        yield "a → b: examples made on a, scored on b; a is the source, b the target."
