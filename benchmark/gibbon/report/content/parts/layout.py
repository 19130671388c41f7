"""Tables before they are printed: columns, cells with typed values, notes, and chapters of tables.

`gibbon.report.content.chapters` fills these records; `gibbon.report.text.markdown`,
`gibbon.report.text.terminal` and others print them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Final, Literal

from gibbon.core.threat import Epsilon
from gibbon.records.flag_kinds import MEANINGS
from gibbon.records.flags import Flag
from gibbon.report.content.parts.flag_groups import MARK, FlagGroup, flag_groups
from gibbon.report.content.parts.lookup import RunLookup

CellKind = Literal["", "failed", "not run", "nothing", "differs", "reproduced", "flags"]


@dataclass(frozen=True)
class Column:
    """A column of a table: its heading, its alignment and its priority.

    Args:
        header: its heading.
        align: the side that its cells are aligned to.
        level: in a narrow table, columns of the highest level are left out first, from the right.
        bar: whether a page draws a bar under each of its rates.
        detailed: whether a terminal prints the details of its cells, such as intervals, too.
    """

    header: str
    align: Literal["left", "right"] = "right"
    level: Literal[0, 1, 2] = 0
    bar: bool = False
    detailed: bool = False


def columns(
    *headers: str, align: Literal["left", "right"] = "right", level: Literal[0, 1, 2] = 0
) -> tuple[Column, ...]:
    """Returns columns with these headings and the same alignment and level."""
    return tuple(Column(header, align, level) for header in headers)


@dataclass(frozen=True)
class TableCell:
    """A cell of a table: its text, the number that it stands for, and its flags.

    Args:
        text: what is printed.
        detail: printed after the text if there is room.
        value: the number that the cell is sorted by; None if it is not a number.
        kind: what the text stands for if it is neither a name nor a number.
        flags: the flags that affect the number.
        kinds: the kinds of flags that the text names.
    """

    text: str
    detail: str = ""
    value: float | None = None
    kind: CellKind = ""
    flags: tuple[Flag, ...] = ()
    kinds: tuple[str, ...] = ()

    @property
    def mark(self) -> str:
        """The mark of a number with a serious flag; else empty."""
        return MARK if any(each.severity == "serious" for each in self.flags) else ""

    @property
    def marked(self) -> str:
        """The text with its mark, so that no number is copied without it."""
        return f"{self.text} {self.mark}" if self.mark else self.text

    def __str__(self) -> str:
        return f"{self.marked} {self.detail}" if self.detail else self.marked

    def flagged(self, flags: Iterable[Flag]) -> TableCell:
        """Returns the cell with the flags that affect its number; a word or a dash has none."""
        return self if self.kind or self.value is None else replace(self, flags=tuple(flags))


Row = tuple[TableCell, ...]

FAILED: Final = TableCell("failed", kind="failed")
NOT_RUN: Final = TableCell("not run", kind="not run")
NOTHING: Final = TableCell("–", kind="nothing")


@dataclass(frozen=True)
class Table:
    """A table with its title, and notes that say what its numbers mean.

    ``continues`` says that the title continues its chapter's, such as "on mnist" after "Transfer".
    ``collapsed`` is a sentence that is shown in place of the table, if it is not empty.
    """

    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    continues: bool = False
    collapsed: str = ""

    @classmethod
    def on(
        cls,
        dataset: str,
        columns: tuple[Column, ...],
        rows: Iterable[Row],
        *,
        detail: str = "",
        notes: Iterable[str] = (),
        collapsed: str = "",
    ) -> Table:
        """Returns a table about one dataset; ``detail`` follows the dataset's name in its title."""
        title = f"on {dataset}{detail}"
        return cls(title, columns, tuple(rows), tuple(notes), True, collapsed)

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(
                    f"{self.title}: a row of {len(row)} cells under {len(self.columns)} columns"
                )

    def filled(self, *, level: int = 2) -> Table:
        """Returns the table with its columns up to a level that are not empty."""
        shown = [
            place
            for place, column in enumerate(self.columns)
            if column.level <= level
            and (not self.rows or any(row[place].text for row in self.rows))
        ]
        return replace(
            self,
            columns=tuple(self.columns[place] for place in shown),
            rows=tuple(tuple(row[place] for place in shown) for row in self.rows),
        )

    def without(self, place: int) -> Table:
        """Returns the table without the column at a place."""
        rows = tuple((*row[:place], *row[place + 1 :]) for row in self.rows)
        left = (*self.columns[:place], *self.columns[place + 1 :])
        return replace(self, columns=left, rows=rows)

    def without_empty(self, header: str) -> Table:
        """Returns the table without the columns of this heading that are empty in every row."""
        shown = [
            place
            for place, column in enumerate(self.columns)
            if column.header != header or any(row[place].text for row in self.rows)
        ]
        return replace(
            self,
            columns=tuple(self.columns[place] for place in shown),
            rows=tuple(tuple(row[place] for place in shown) for row in self.rows),
        )

    def with_flag_notes(self) -> Table:
        """Returns the table with a note below it for each kind of flag that affects a number."""
        flags = dict.fromkeys(flag for row in self.rows for each in row for flag in each.flags)
        notes = tuple(map(_flag_note, flag_groups(flags)))
        return replace(self, notes=(*notes, *self.notes)) if notes else self


def _flag_note(group: FlagGroup) -> str:
    mark = f"{MARK} " if group.severity == "serious" else ""
    status = group.status.capitalize()
    meaning = "" if group.accepted else f", {MEANINGS[group.severity]}"
    return f"{mark}{status}{meaning}: `{group.kind}`, {group.title}."


@dataclass(frozen=True)
class Chapter:
    """Tables that belong together, under one heading; ``flags`` are shown before them.

    ``collapsed`` are sentences in place of tables that too few examples would make; they are among
    the notes.
    """

    title: str
    tables: tuple[Table, ...] = ()
    notes: tuple[str, ...] = ()
    flags: tuple[FlagGroup, ...] = ()
    collapsed: tuple[str, ...] = ()

    @property
    def empty(self) -> bool:
        """Whether there is nothing to show."""
        return not (self.tables or self.notes or self.flags)

    def caption(self, table: Table) -> str:
        """Returns the title of one of the tables, complete without the chapter's heading."""
        return f"{self.title} {table.title}" if table.continues else table.title


@dataclass(frozen=True)
class ChapterKind:
    """A chapter that every report has if a run has results for it: how its tables are made."""

    title: str
    tables: Callable[[RunLookup], Iterable[Table]]
    notes: tuple[str, ...] = ()

    def chapter(self, results: RunLookup) -> Chapter:
        """Returns the chapter of a run."""
        found = tuple(self.tables(results))
        tables = tuple(each.with_flag_notes() for each in found if not each.collapsed)
        collapsed = tuple(
            f"{self.title} {each.title}: {each.collapsed}" for each in found if each.collapsed
        )
        notes = (*collapsed, *self.notes) if tables else collapsed
        return Chapter(self.title, tables, notes if found else self.notes, collapsed=collapsed)


def cells(*contents: str | Epsilon | TableCell) -> Row:
    """Returns a row of cells.

    >>> [str(cell) for cell in cells("a", TableCell("1.0 %", "[0.9–1.1]"))]
    ['a', '1.0 % [0.9–1.1]']
    >>> cells(Epsilon.parse("1/4"))[0].value
    0.25
    """
    return tuple(
        each
        if isinstance(each, TableCell)
        else TableCell(str(each), value=float(each) if isinstance(each, Epsilon) else None)
        for each in contents
    )
