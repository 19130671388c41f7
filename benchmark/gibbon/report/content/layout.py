"""What a table is, before anybody prints it: columns, cells, notes, and chapters of tables.

`gibbon.report.content.chapters` fills these records; `gibbon.report.text.markdown` and
`gibbon.report.text.terminal` print them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

FAILED = "failed"
NOT_RUN = "not run"
NOTHING = "–"


@dataclass(frozen=True)
class Column:
    """One column; where there is little room, the highest ``level`` is left out first."""

    header: str
    align: Literal["left", "right"] = "right"
    level: Literal[0, 1, 2] = 0


@dataclass(frozen=True)
class Cell:
    """What is printed in one place; ``detail`` is left out where there is little room."""

    text: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.text} {self.detail}" if self.detail else self.text


@dataclass(frozen=True)
class Table:
    """A table with its title, and notes that say what its numbers mean."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(
                    f"{self.title}: a row of {len(row)} cells under {len(self.columns)} columns"
                )


@dataclass(frozen=True)
class Chapter:
    """Tables that belong together, under one heading."""

    title: str
    tables: tuple[Table, ...] = ()
    notes: tuple[str, ...] = ()


def cells(*texts: str | Cell) -> tuple[Cell, ...]:
    """Returns a row of cells.

    >>> [str(cell) for cell in cells("a", Cell("1.0 %", "[0.9–1.1]"))]
    ['a', '1.0 % [0.9–1.1]']
    """
    return tuple(each if isinstance(each, Cell) else Cell(each) for each in texts)
