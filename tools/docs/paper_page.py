"""The tables of `docs/the-paper.md`: claims, published rows, sweeps and filters, with verdicts."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from gibbon.core.errors import RecordError, UnknownNameError
from gibbon.core.reading import TEXT_BYTES, read_bytes
from gibbon.records.run import RunRecord
from gibbon.records.swept_outputs import SweepRecord, SweptModel
from gibbon.report.content.parts.layout import (
    NOTHING,
    Column,
    Row,
    Table,
    TableCell,
    cells,
    columns,
)
from gibbon.report.content.parts.lookup import RunLookup
from gibbon.report.content.parts.number_format import count, percent
from gibbon.report.content.published_numbers.claims import claims_table
from gibbon.report.content.published_numbers.published import paper_table
from gibbon.report.content.published_numbers.verdicts import (
    KINDS,
    VerdictWord,
    claim_verdict,
    verdict,
)
from gibbon.report.content.tables.sweep_table import sweep_table
from gibbon.specs.published import PublishedRow

STRAIGHT = 0.99  # of the outputs' variation: a parabola from its vertex has 15/16


def chosen_claims(record: RunRecord, ids: Sequence[str]) -> Table:
    """Returns the table of some claims of a run.  Raises `UnknownNameError`."""
    known = {claim.id: claim for claim in record.suite.claims}
    for each in ids:
        if each not in known:
            raise UnknownNameError("claim", each, known=known)
    table = claims_table(RunLookup(record), [known[each] for each in ids])
    if table is None:
        raise RecordError(f"suite {record.suite.name}: no claim is named")
    return table


def chosen_rows(record: RunRecord, ids: Sequence[str]) -> Table:
    """Returns the table of some published rows of a run, without the notes that explain it.

    Raises `UnknownNameError`.
    """
    known = {row.id for row in record.suite.published if row.id is not None}
    for each in ids:
        if each not in known:
            raise UnknownNameError("published row", each, known=known)
    table = paper_table(RunLookup(record), ids)
    if table is None:
        raise RecordError(f"suite {record.suite.name}: no row is named")
    return replace(table, notes=tuple(note for note in table.notes if note.startswith("(")))


def tally(record: RunRecord) -> Table:
    """Returns how many published numbers and claims of a run have each verdict."""
    results = RunLookup(record)
    rows = Counter(found.word for r in record.suite.published if (found := verdict(r, results)))
    claims = Counter(claim_verdict(claim, results).word for claim in record.suite.claims)
    words = [word for word in KINDS if rows[word] or claims[word]]
    trainings = {
        model.seeds_of: sum(other.seeds_of == model.seeds_of for other in each.models)
        for each in record.suite.experiments
        for model in each.models
        if model.seeds_of is not None
    }
    several = ", ".join(f"{name} ({number})" for name, number in trainings.items() if number > 1)
    return Table(
        title="Verdicts",
        columns=(Column("", "left"), *columns(*words)),
        rows=(
            cells("published numbers", *(_number(rows, word) for word in words)),
            *(
                cells(
                    f"published numbers, along {name} alone",
                    *(_number(each, word) for word in words),
                )
                for name, each in _along_one(record.suite.published, results)
            ),
            cells("claims", *(_number(claims, word) for word in words)),
        ),
        notes=(
            f"Models with several trainings: {several}."
            if several
            else "Each model is one training: intervals and tests are about these networks.",
            *_flag_notes(results),
        ),
    )


def _along_one(
    rows: Sequence[PublishedRow], results: RunLookup
) -> Iterator[tuple[str, Counter[VerdictWord]]]:
    """Yields attacks of rows that are judged along two, with the verdicts along each alone."""
    pairs = {row.attack for row in rows if len(row.attack) > 1}
    for name in dict.fromkeys(name for pair in sorted(pairs) for name in pair):
        alone = (
            row.model_copy(update={"attack": (name,)}) if name in row.attack else row
            for row in rows
        )
        yield name, Counter(found.word for row in alone if (found := verdict(row, results)))


def _flag_notes(results: RunLookup) -> tuple[str, ...]:
    """Returns the notes on the flags of all published numbers and claims of a run."""
    tables = (paper_table(results), claims_table(results, results.record.suite.claims))
    rows = tuple(
        tuple(each for row in table.rows for each in row) for table in tables if table is not None
    )
    cells_alone = Table(title="", columns=(Column(""),), rows=tuple((c,) for r in rows for c in r))
    return cells_alone.with_flag_notes().notes


def _number(found: Counter[VerdictWord], word: VerdictWord) -> TableCell:
    return count(found[word]) if found[word] else NOTHING


def judged_sweep(folder: Path) -> Table:
    """Returns the table of a sweep with a verdict: whether each model is linear on both sides."""
    record = SweepRecord.read(folder)
    table = sweep_table(record.models)
    verdicts = [_linear(each) for each in record.models]
    return replace(
        table,
        columns=(*table.columns, Column("Linear", "left")),
        rows=tuple((*row, cell) for row, cell in zip(table.rows, verdicts, strict=True)),
        notes=(
            *table.notes,
            f"Linear: yes if both intervals lie above {100 * STRAIGHT:g} %, no if one lies below, "
            "else undecided. A parabola from its vertex on has 93.75 %.",
        ),
    )


def _linear(found: SweptModel) -> TableCell:
    lows = (found.linear_down_low, found.linear_up_low)
    highs = (found.linear_down_high, found.linear_up_high)
    if all(low is not None and low > STRAIGHT for low in lows):
        return TableCell("yes", kind="reproduced")
    if any(high is not None and high < STRAIGHT for high in highs):
        return TableCell("no", kind="differs")
    return TableCell("undecided", kind="differs")


def filters_table(file: Path) -> Table:
    """Returns the table of two networks' filters, with a verdict on each measure."""
    found = json.loads(read_bytes(file, RecordError, limit=TEXT_BYTES))
    first, second = found["first"], found["second"]
    rows: list[Row] = []
    for name, better in (("smoothness", 1), ("spread", -1)):
        own = found[name]
        low, high = (better * own[end] for end in ("low", "high"))
        word: VerdictWord = "undecided"
        if min(low, high) > 0:
            word = "reproduced"
        elif max(low, high) < 0:
            word = "refuted"
        difference = f"{100 * own['difference']:+.1f} [{100 * own['low']:+.1f} to "
        difference += f"{100 * own['high']:+.1f}]"
        rows.append(
            cells(
                name,
                percent(own["first"]),
                percent(own["second"]),
                difference.replace("-", "−"),
                "larger" if better > 0 else "smaller",
                TableCell(word, kind=KINDS[word]),
            )
        )
    return Table(
        title="First-layer filters",
        columns=(
            Column("Measure", "left"),
            *columns(first, second, "Difference, points"),
            Column("Claimed", "left"),
            Column("Verdict", "left"),
        ),
        rows=tuple(rows),
        notes=(
            f"Means over {found['filters'][0]:,} and {found['filters'][1]:,} filters, of one "
            f"network each ({found['smoothness']['test']}, 95 % interval of the difference); what "
            "differs between two networks of one recipe is not in it.",
        ),
    )
