"""The most important tables of a run for a terminal, as wide as it has room for."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from gibbon.core.plain_text import printable
from gibbon.records.gallery import FOLDER as PICTURES
from gibbon.records.run import RUN_FILE, RunRecord
from gibbon.report.content.parts.flag_groups import MARK, FlagGroup, FlagLine
from gibbon.report.content.parts.layout import CellKind, Chapter, Column, Table, TableCell
from gibbon.report.content.parts.lookup import RunLookup
from gibbon.report.content.published_numbers.claims import CLAIMS
from gibbon.report.content.published_numbers.published import PAPER
from gibbon.report.content.summary.conclusion import assumptions, conclusions
from gibbon.report.content.summary.opening import Opening, OpeningState, opening
from gibbon.report.content.tables.attack_comparison import COMPARED
from gibbon.report.content.tables.distances import NEAREST
from gibbon.report.content.tables.evaluations import EVALUATIONS
from gibbon.report.content.tables.failures_and_flags import failures_and_flags
from gibbon.report.content.tables.no_class import NO_CLASS, no_class_tables
from gibbon.report.content.tables.transfer import TRANSFER, transfer_tables
from gibbon.report.content.tables.worst_case import MEMBERS
from gibbon.report.file_names import TENSORBOARD_FOLDER, TEXT_FILES

_SHORT = (
    *(PAPER, CLAIMS, EVALUATIONS, COMPARED, NEAREST, MEMBERS),
    replace(TRANSFER, tables=partial(transfer_tables, only_error=True)),
    replace(NO_CLASS, tables=partial(no_class_tables, brief=True)),
)
_GAP = 2  # characters that the frame takes for each column
_UNIT = "\ue000%"  # " %" while lines are broken, so that it stays with its number
_FEW = 3  # lines that are printed of a group of flags
_STYLES: Mapping[CellKind, str] = {"failed": "bold red", "not run": "yellow"}
_COLOURS: Mapping[OpeningState, str] = {
    "unusable": "bold red",
    "incomplete": "bold red",
    "passed": "green",
    "unchecked": "yellow",
}


def print_tables(record: RunRecord, console: Console, *, place: str = "") -> None:
    """Prints a run as `print_record` does, and where its other tables are.

    ``place`` is that of ``tables.md``, which has all tables.
    """
    place = place or "tables.md in the run's folder"
    print_record(record, console, more=f"Intervals, counts, notes and all other tables: {place}")


def print_places(
    place: str, console: Console, *, folder: Path | None = None, attacked: bool = True
) -> None:
    """Prints where the files of a run are, and the commands that make documents of them.

    Args:
        place: path or URL of the run.
        console: where to print.
        folder: the run's folder on a local disk, whose files are listed.
        attacked: whether a model was attacked, as the table for a paper needs.
    """
    console.print(Text(f"Everything is in {printable(place)}", style="bold"), soft_wrap=True)
    if folder is not None:
        files = [each for each in (*TEXT_FILES, RUN_FILE) if (folder / each).is_file()]
        shown = [each for each in (TENSORBOARD_FOLDER, PICTURES) if (folder / each).is_dir()]
        if files or shown:
            _print(", ".join([*files, *(f"{each}/" for each in shown)]), console, indent=2)
    name = shlex.quote(place)
    commands = [(f"gibbon report {name}", "one page with everything, report.html")]
    if attacked:
        commands.append((f"gibbon report {name} --latex --table main", "the table for a paper"))
    for command, what in commands:
        _print(f"{what}:", console, indent=2)
        console.print(Text(f"    {command}", style="bold"), soft_wrap=True)


def print_record(record: RunRecord, console: Console, *, more: str = "") -> None:
    """Prints a run: whether its numbers may be used, its conclusions, tables and flags.

    Above the tables is what was assumed of inputs and models.

    The flags and the advice on them come last, so that they do not scroll away.

    Args:
        record: the run's record.
        console: where to print.
        more: a line after the tables.
    """
    first = opening(record, brief=True)
    if first.state != "passed":
        _print(first.sentence, console, style=_COLOURS[first.state])
    for sentence in conclusions(record):
        _print(sentence, console, style="bold")
    for line in assumptions(record):
        _print(line, console)
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
    found = (kind.chapter(results) for kind in _SHORT)
    short = (replace(each, notes=each.collapsed) for each in found)
    return (*short, failures_and_flags(record))  # last, so that they do not scroll away


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
    for line in _lines(plain, console, max(1, console.width - indent)):
        console.print(Text(" " * indent).append(line, style=style))


def _lines(text: str, console: Console, width: int) -> list[str]:
    """Returns a text on lines of a width, broken between words; a unit stays with its number."""
    wrapped = Text(text.replace(" %", _UNIT)).wrap(console, width)
    return [line.plain.rstrip().replace(_UNIT, " %") for line in wrapped]


def print_table(table: Table, console: Console) -> None:
    """Prints one table with its title, as wide as the terminal has room for."""
    _print(table.title, console, style="bold")
    fitted = _fitted(table, console)
    if fitted is None:
        _print_stacked(table, console)
    else:
        console.print(fitted)


def _fitted(table: Table, console: Console) -> RichTable | None:
    """Returns a table as it fits into a terminal; None if not even its main columns do.

    Columns are left out one by one, those of the highest level first, from the right.  Headings
    may take several lines.  Cells may only once all columns that can be left out are.
    """
    shown = table.filled()
    while True:
        printed = _Printed(shown)
        last = max((column.level for column in shown.columns), default=0)
        widths = printed.widths_within(console.width, cells_wrap=last == 0)
        if widths is not None:
            return printed.rich(widths, console)
        if last == 0:
            return None
        place = max(at for at, column in enumerate(shown.columns) if column.level == last)
        shown = shown.without(place)


def _print_stacked(table: Table, console: Console) -> None:
    """Prints the main columns of a table with the cells of each row in a line of prose.

    A row begins with the columns that name it, those before the first that is a number.
    """
    shown = table.filled(level=0)
    numbers = [at for at, each in enumerate(shown.columns) if each.align == "right"]
    names = next((at for at in numbers if at > 0), len(shown.columns))
    for row in shown.rows:
        named = zip(shown.columns[:names], row[:names], strict=True)
        title = ", ".join(
            text if column.align == "left" else f"{column.header} {text}"
            for column, cell in named
            if (text := str(cell))
        )
        _print(title, console, style="bold")
        rest = zip(shown.columns[names:], row[names:], strict=True)
        parts = [f"{column.header}: {cell}" for column, cell in rest if str(cell) not in ("", "–")]
        red = any(cell.mark or cell.kind == "failed" for cell in row)
        _print("; ".join(parts), console, indent=2, style="red" if red else "")
    console.print()


class _Printed:
    """The columns of a table, and their widths."""

    def __init__(self, shown: Table) -> None:
        self.columns, self.rows = shown.columns, shown.rows
        self.bodies = [
            [printable(_text(row[place], column)) for row in self.rows]
            for place, column in enumerate(self.columns)
        ]
        self.widest = [
            max(len(text) for text in (column.header, *body))
            for column, body in zip(self.columns, self.bodies, strict=True)
        ]

    def room_for(self, widths: list[int]) -> int:
        """Returns the width of the table with columns of these widths."""
        return sum(widths) + _GAP * len(widths)

    def widths_within(self, room: int, *, cells_wrap: bool) -> list[int] | None:
        """Returns widths that fit and break no word, reducing the column with most room first.

        None if there are none.  Without ``cells_wrap`` only headings take several lines.
        """
        narrowest = [
            max(map(len, (*column.header.split(), *parts)), default=0)
            for column, body, cells in zip(
                self.columns, self.bodies, zip(*self.rows, strict=True) or (), strict=True
            )
            for parts in [_unbreakable(cells, body) if cells_wrap else body]
        ]
        widths = list(self.widest)
        while self.room_for(widths) > room:
            spare = [width - low for width, low in zip(widths, narrowest, strict=True)]
            if not any(spare):
                return None
            widths[spare.index(max(spare))] -= 1
        return widths

    def rich(self, widths: list[int], console: Console) -> RichTable:
        """Returns the table to print."""
        printed = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
        for place, column in enumerate(self.columns):
            printed.add_column(
                Text(printable(column.header)),
                justify=column.align,
                overflow="fold",
                width=widths[place],
            )
        for row, texts in zip(self.rows, zip(*self.bodies, strict=True), strict=True):
            parts = zip(texts, row, widths, strict=True)
            printed.add_row(
                *(
                    Text("\n".join(_lines(text, console, width)), style=_style(cell))
                    for text, cell, width in parts
                )
            )
        return printed


def _style(cell: TableCell) -> str:
    return "red" if cell.mark else _STYLES.get(cell.kind, "")


def _text(cell: TableCell, column: Column) -> str:
    return str(cell) if column.detailed else cell.marked


def _unbreakable(cells: Iterable[TableCell], texts: list[str]) -> list[str]:
    """Returns the parts of a column that stay whole: numbers with their units, and words."""
    return [
        part
        for cell, text in zip(cells, texts, strict=True)
        for part in ([text] if cell.value is not None else text.replace(" %", _UNIT).split(" "))
    ]
