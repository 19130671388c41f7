"""All tables of a run, made from its stored record alone.

`gibbon.report.content.lookup` looks up the results of the suite's cells in a record; each function
here makes one kind of `Table` from them; `chapters` puts the tables in reading order.  A cell that
failed is printed as ``failed``, never as a number; a cell of the suite that the record lacks is
printed as ``not run``; a rate of no examples is a dash.
"""

from __future__ import annotations

from gibbon.records.run import RunRecord
from gibbon.report.content.attack_comparison import COMPARED, COMPARED_NOTES, comparison_tables
from gibbon.report.content.distances import _NEAREST_NOTES, NEAREST, nearest_tables
from gibbon.report.content.error_curves import _CURVE_NOTES, CURVES, curve_tables
from gibbon.report.content.evaluations import EVALUATION_NOTES, EVALUATIONS, evaluation_tables
from gibbon.report.content.layout import Chapter, Column, Table, cells, columns
from gibbon.report.content.lookup import RunLookup
from gibbon.report.content.published import paper_table
from gibbon.report.content.transfer import (
    _AGREEMENT_NOTES,
    _TRANSFER_NOTES,
    AGREEMENT,
    TRANSFER,
    agreement_tables,
    transfer_tables,
)
from gibbon.report.content.worst_case import (
    _MEMBER_NOTES,
    _WORST_CASE_NOTES,
    MEMBERS,
    WORST_CASE,
    member_tables,
    worst_case_tables,
)

PAPER = "Published and measured"
TROUBLE = "Failures and flags"


def chapters(record: RunRecord) -> tuple[Chapter, ...]:
    """Returns all tables of a run in reading order; without empty chapters."""
    results = RunLookup(record)
    paper = paper_table(results)
    found = (
        trouble(record),
        Chapter(PAPER, (paper,) if paper else ()),
        Chapter(EVALUATIONS, tuple(evaluation_tables(results)), EVALUATION_NOTES),
        Chapter(COMPARED, tuple(comparison_tables(results)), COMPARED_NOTES),
        Chapter(CURVES, tuple(curve_tables(results)), _CURVE_NOTES),
        Chapter(NEAREST, tuple(nearest_tables(results)), _NEAREST_NOTES),
        Chapter(WORST_CASE, tuple(worst_case_tables(results)), _WORST_CASE_NOTES),
        Chapter(MEMBERS, tuple(member_tables(results)), _MEMBER_NOTES),
        Chapter(TRANSFER, tuple(transfer_tables(results)), _TRANSFER_NOTES),
        Chapter(AGREEMENT, tuple(agreement_tables(results)), _AGREEMENT_NOTES),
    )
    return tuple(each for each in found if each.tables or (each.title == TROUBLE and each.notes))


def trouble(record: RunRecord) -> Chapter:
    """Returns the failures and flags of a run, and whether it is complete."""
    tables = []
    if record.failures:
        rows = tuple(
            cells(
                each.dataset,
                each.model,
                each.attack,
                each.epsilon,
                next(iter(each.error.splitlines()), ""),
            )
            for each in record.failures
        )
        tables.append(
            Table(
                "Failed cells",
                (
                    *columns("Dataset", "Model", "Attack", align="left"),
                    Column("ε"),
                    Column("Error", "left"),
                ),
                rows,
                (
                    "A failed cell is in no mean and no matrix; it is printed as `failed`. "
                    "The tracebacks are in run.json.",
                ),
            )
        )
    notes = [f"Flag: {flag}" for flag in record.flags]
    if record.status not in ("done", "failed"):
        notes.insert(0, f"This run is not complete ({record.status}): cells are missing.")
    return Chapter(TROUBLE, tuple(tables), tuple(notes))
