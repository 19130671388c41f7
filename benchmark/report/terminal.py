"""The tables of a run in a terminal: the columns that matter most, and where the rest is."""

from __future__ import annotations

from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from benchmark.records import RunRecord
from benchmark.report.layout import FAILED, NOT_RUN, Cell, Chapter, Table
from benchmark.report.published import paper_table
from benchmark.report.results import Results
from benchmark.report.tables import (
    EVALUATIONS,
    PAPER,
    TRANSFER,
    evaluation_tables,
    transfer_tables,
    trouble,
)

_STYLES = {FAILED: "bold red", NOT_RUN: "yellow"}


def print_tables(record: RunRecord, console: Console, *, folder: Path | None = None) -> None:
    """Prints the paper's table, the evaluations and the transfer errors; failures come last.

    ``folder`` is the run's folder: where ``tables.md`` with everything else is.
    """
    results = Results(record)
    paper = paper_table(results)
    for chapter in (
        Chapter(PAPER, (paper,) if paper else ()),
        Chapter(EVALUATIONS, tuple(evaluation_tables(results))),
        Chapter(TRANSFER, tuple(transfer_tables(results, only_error=True))),
        trouble(record),  # last: it is what must not scroll away
    ):
        _print_chapter(chapter, console)
    place = folder / "tables.md" if folder else "tables.md in the run's folder"
    console.print(Text(f"Intervals, counts, notes and all other tables: {place}"), soft_wrap=True)


def _print_chapter(chapter: Chapter, console: Console) -> None:
    for table in chapter.tables:
        title = table.title if table.title == chapter.title else f"{chapter.title}: {table.title}"
        console.print(Text(title, style="bold"))
        console.print(_rich(table))
    for note in chapter.notes:
        console.print(Text(note, style="yellow"))


def _rich(table: Table) -> RichTable:
    shown = [index for index, column in enumerate(table.columns) if column.essential]
    # A column with nothing in it takes room and says nothing.
    shown = [index for index in shown if any(row[index].text for row in table.rows)]
    printed = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for index in shown:
        column = table.columns[index]
        printed.add_column(Text(column.header), justify=column.align, overflow="fold")
    for row in table.rows:
        printed.add_row(*(_text(row[index]) for index in shown))
    return printed


def _text(cell: Cell) -> Text:
    return Text(cell.text, style=_STYLES.get(cell.text, ""))
