"""The paper's table: each published number with the measured one beside it."""

from __future__ import annotations

from collections.abc import Iterator

from benchmark.report.layout import FAILED, NOT_RUN, NOTHING, Cell, Column, Table, cells
from benchmark.report.results import Measured, Results
from benchmark.report.wording import (
    MEASURES,
    as_published,
    count,
    interval,
    percent,
    points,
    share,
)
from benchmark.specs import UNATTACKED, PublishedRow


def paper_table(results: Results) -> Table | None:
    """Returns the published rows of the suite beside what was measured, if it has any.

    A row names one attack or more.  The first is the main one; each other has columns of its own.
    """
    rows = results.record.suite.published
    if not rows:
        return None
    several = len({row.dataset for row in rows}) > 1
    others = _other_attacks(rows)
    notes = _Footnotes()
    lines = tuple(
        (
            *cells(row.section, *([row.dataset] if several else []), _model(row), _measure(row)),
            *cells(row.attack[0], _epsilon(row), as_published(row.value)),
            *_measured_cells(row, results.published(row, row.attack[0])),
            *(cell for other in others for cell in _other_cells(row, results, other)),
            Cell(notes.mark(row.note)),
        )
        for row in rows
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
            *_measured_columns(_main_header(rows)),
            *(column for other in others for column in _measured_columns(other)),
            Column("Note", "left", level=1),
        ),
        rows=lines,
        notes=(*_reading(results, rows, others), *notes.lines()),
    )


def _main_header(rows: tuple[PublishedRow, ...]) -> str:
    mains = {row.attack[0] for row in rows} - {UNATTACKED}
    return f"Measured ({mains.pop()})" if len(mains) == 1 else "Measured"


def _other_attacks(rows: tuple[PublishedRow, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(attack for row in rows for attack in row.attack[1:]))


def _measured_columns(header: str) -> tuple[Column, ...]:
    return (
        Column(header),
        Column("Δ points"),
        Column("95 % interval", level=1),
        Column("Count", level=2),
    )


def _measured_cells(row: PublishedRow, measured: Measured) -> tuple[Cell, ...]:
    if measured.state != "done":
        word = FAILED if measured.state == "failed" else NOT_RUN
        return cells(word, NOTHING, NOTHING, NOTHING)
    clean = row.measure == "clean_error"
    counts = share(measured.part, measured.whole) if measured.part is not None else NOTHING
    if measured.part is None and measured.whole is not None:
        counts = f"mean of {count(measured.whole)}"
    return cells(
        percent(measured.rate, clean=clean),
        points(measured.rate, row.value, clean=clean),
        interval(measured.low, measured.high, rate=measured.rate, clean=clean),
        counts,
    )


def _other_cells(row: PublishedRow, results: Results, attack: str) -> tuple[Cell, ...]:
    if attack not in row.attack[1:]:
        return cells("", "", "", "")
    return _measured_cells(row, results.published(row, attack))


def _model(row: PublishedRow) -> str:
    if row.target is None:
        return row.model
    if row.compared_with is None:
        return f"{row.model} → {row.target}"
    return f"{row.model} → {row.target}, {row.compared_with}"


def _measure(row: PublishedRow) -> str:
    if row.compared_with is not None:
        return "same wrong class in both targets, given both misled"
    if row.measure == "mean_confidence" and row.attack[0] == UNATTACKED:
        return "mean confidence, clean"
    return MEASURES[row.measure]


def _epsilon(row: PublishedRow) -> str:
    return NOTHING if row.attack[0] == UNATTACKED else str(row.epsilon)


def _reading(
    results: Results, rows: tuple[PublishedRow, ...], others: tuple[str, ...]
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
        main = rows[0].attack[0] if len({row.attack[0] for row in rows}) == 1 else "the main attack"
        mains = sorted({row.attack[0] for row in rows} - {UNATTACKED})
        main = mains[0] if len(mains) == 1 else main
        yield (
            f"The first measured column is under {main} (unattacked where the attack is "
            f"`{UNATTACKED}`); the columns headed {', '.join(others)} repeat the measurement under "
            "that attack."
        )
    if any(row.target for row in rows):
        yield "a → b: examples made on a, scored on b; a is the source, b the target."


class _Footnotes:
    """Notes under a table: the same note gets the same mark."""

    def __init__(self) -> None:
        self._marks: dict[str, str] = {}

    def mark(self, note: str) -> str:
        if not note:
            return ""
        return self._marks.setdefault(note, f"({len(self._marks) + 1})")

    def lines(self) -> tuple[str, ...]:
        return tuple(f"{mark} {note}" for note, mark in self._marks.items())
