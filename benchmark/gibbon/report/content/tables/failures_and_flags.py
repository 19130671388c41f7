"""The first chapter of a report: failed cells, flags, and whether the run is complete."""

from __future__ import annotations

from gibbon.records.run import RunRecord
from gibbon.report.content.parts.flag_groups import flag_groups
from gibbon.report.content.parts.layout import Chapter, Column, Table, cells, columns

FAILURES_AND_FLAGS = "Failures and flags"


def failures_and_flags(record: RunRecord) -> Chapter:
    """Returns the failures and flags of a run, and whether it is complete."""
    tables = []
    if record.failures:
        rows = tuple(
            cells(each.dataset, each.model, each.attack, each.epsilon, each.text)
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
    notes = []
    if record.status not in ("done", "failed"):
        notes.append(f"This run is not complete ({record.status}): cells are missing.")
    return Chapter(FAILURES_AND_FLAGS, tuple(tables), tuple(notes), flag_groups(record.flags))
