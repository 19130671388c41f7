"""The most important tables of a run for a terminal, as wide as it has room for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from gibbon.core.plain_text import printable
from gibbon.records.run import RunRecord
from gibbon.report.content.attack_comparison import COMPARED
from gibbon.report.content.claims import CLAIMS
from gibbon.report.content.distances import NEAREST
from gibbon.report.content.evaluations import EVALUATIONS
from gibbon.report.content.failures_and_flags import failures_and_flags
from gibbon.report.content.flag_groups import MARK, FlagGroup, FlagLine
from gibbon.report.content.layout import Chapter, Column, Kind, Table, TableCell
from gibbon.report.content.lookup import RunLookup
from gibbon.report.content.no_class import NO_CLASS, no_class_tables
from gibbon.report.content.opening import Opening, State, opening
from gibbon.report.content.published import PAPER
from gibbon.report.content.transfer import TRANSFER, transfer_tables
from gibbon.report.content.worst_case import MEMBERS

_SHORT = (
    *(PAPER, CLAIMS, EVALUATIONS, COMPARED, NEAREST, MEMBERS),
    replace(TRANSFER, tables=partial(transfer_tables, only_error=True)),
    replace(NO_CLASS, tables=partial(no_class_tables, brief=True)),
)
_GAP = 2  # characters that the frame takes for each column
_FEW = 3  # lines that are printed of a group of flags
_STYLES: Mapping[Kind, str] = {"failed": "bold red", "not run": "yellow"}
_COLOURS: Mapping[State, str] = {
    "unusable": "bold red",
    "incomplete": "bold red",
    "passed": "green",
    "unchecked": "yellow",
}


def print_tables(record: RunRecord, console: Console, *, folder: Path | None = None) -> None:
    """Prints a run as `print_record` does, and where its other tables are.

    ``folder`` is the run's folder, with ``tables.md``, which has all tables.
    """
    place = folder / "tables.md" if folder else "tables.md in the run's folder"
    print_record(record, console, more=f"Intervals, counts, notes and all other tables: {place}")


def print_record(record: RunRecord, console: Console, *, more: str = "") -> None:
    """Prints a run: whether its numbers may be used, its most important tables, and its flags.

    The flags and the advice on them come last, so that they do not scroll away.

    Args:
        record: the run's record.
        console: where to print.
        more: a line after the tables.
    """
    first = opening(record, brief=True)
    if first.state != "passed":
        _print(first.sentence, console, style=_COLOURS[first.state])
    *chapters, last = short_chapters(record)
    print_chapters(chapters, console)
    if more:
        console.print(Text(printable(more)), soft_wrap=True)
    print_chapters([last], console)
    _print_opening(first, console)


def short_chapters(record: RunRecord) -> tuple[Chapter, ...]:
    """Returns the most important chapters, with failures and flags last.

    They are published numbers, claims, evaluations, attacks compared, smallest distances, members
    of lists, transfer errors, and false positives on inputs without a class.
    """
    results = RunLookup(record)
    found = (replace(kind.chapter(results), notes=()) for kind in _SHORT)
    return (*found, failures_and_flags(record))  # last, so that they do not scroll away


def print_chapters(chapters: Iterable[Chapter], console: Console) -> None:
    """Prints tables and notes, as wide as the terminal has room for."""
    for chapter in chapters:
        for table in chapter.tables:
            print_table(replace(table, title=chapter.caption(table)), console)
        for group in chapter.flags:
            _print_flags(group, console)
        for note in chapter.notes:
            _print(note, console, style="yellow")


def _print_flags(group: FlagGroup, console: Console) -> None:
    """Prints the flags of one kind: the first lines in full, and the number of the others."""
    style = "bold red" if group.counts else "yellow"
    _print(f"{group.status}: {group.kind}, {group.summary}", console, style=style)
    lines = [(subject, line) for line in group.lines for subject in line.subjects]
    for subject, line in lines[:_FEW]:
        _print(f"{subject}: {line.seen}", console, indent=2)
        _print_settling(line, console, indent=4)
    if len(lines) > _FEW:
        _print(f"and {len(lines) - _FEW:,} more: tables.md, run.json", console, indent=2)
    _print_settling(group, console, indent=2)


def _print_settling(of: FlagGroup | FlagLine, console: Console, *, indent: int) -> None:
    if of.advice:
        _print(f"What to do: {of.advice}", console, indent=indent)
    for line in filter(str.strip, of.suite.splitlines()):
        console.print(Text(" " * (indent + 2) + line), soft_wrap=True)
    if of.source:
        _print(f"Source: {of.source}", console, indent=indent)


def _print_opening(first: Opening, console: Console) -> None:
    """Prints the first lines of a report as the last ones, with where to read more."""
    for note in first.notes:
        _print(note, console)
    if first.reasons:
        _print(f"{MARK} A serious flag affects this number.", console)
    _print(first.sentence, console, style=_COLOURS[first.state])
    for group in first.reasons:
        _print(f"{group.kind}: {group.advice}".rstrip(": "), console, indent=2)
        _print(f"gibbon explain {group.kind}", console, indent=4, style="bold")


def _print(text: str, console: Console, *, indent: int = 0, style: str = "") -> None:
    """Prints a text on lines that fit, with an indent."""
    plain = printable(text).replace("`", "")
    for line in Text(plain, style=style).wrap(console, max(1, console.width - indent)):
        line.rstrip()
        console.print(Text(" " * indent).append(line))


def print_table(table: Table, console: Console) -> None:
    """Prints one table with its title, as wide as the terminal has room for."""
    console.print(Text(printable(table.title), style="bold"))
    console.print(_fitted(table, console))


def _fitted(table: Table, console: Console) -> RichTable:
    for level in (2, 1):
        printed = _Printed(table, level=level)
        if printed.room_for(printed.widest) <= console.width:
            return printed.rich(printed.widest)
    printed = _Printed(table, level=0)
    return printed.rich(printed.widths_within(console.width))


class _Printed:
    """The columns of a table up to one level, and their widths."""

    def __init__(self, table: Table, *, level: int) -> None:
        shown = table.filled(level=level)
        self.columns, self.rows = shown.columns, shown.rows
        bodies = [
            [printable(row[place].marked) for row in self.rows]
            for place in range(len(self.columns))
        ]
        self.widest = [
            max(len(text) for text in (column.header, *body))
            for column, body in zip(self.columns, bodies, strict=True)
        ]
        self._narrowest = [
            max(len(part) for part in (*column.header.split(), *_unbreakable(column, body)))
            for column, body in zip(self.columns, bodies, strict=True)
        ]

    def room_for(self, widths: list[int]) -> int:
        """Returns the width of the table with columns of these widths."""
        return sum(widths) + _GAP * len(widths)

    def widths_within(self, room: int) -> list[int] | None:
        """Returns widths that fit and break no word, reducing the column with most room first."""
        widths = list(self.widest)
        while self.room_for(widths) > room:
            spare = [width - low for width, low in zip(widths, self._narrowest, strict=True)]
            if not any(spare):
                return None
            widths[spare.index(max(spare))] -= 1
        return widths

    def rich(self, widths: list[int] | None) -> RichTable:
        """Returns the table to print; without widths, words are broken to fit."""
        printed = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
        for place, column in enumerate(self.columns):
            printed.add_column(
                Text(printable(column.header)),
                justify=column.align,
                overflow="fold",
                width=widths[place] if widths else None,
            )
        for row in self.rows:
            printed.add_row(*(Text(printable(each.marked), style=_style(each)) for each in row))
        return printed


def _style(cell: TableCell) -> str:
    return "red" if cell.mark else _STYLES.get(cell.kind, "")


def _unbreakable(column: Column, texts: list[str]) -> list[str]:
    # Text may be broken between words; a number is not separated from its unit.
    return texts if column.align == "right" else [word for text in texts for word in text.split()]
