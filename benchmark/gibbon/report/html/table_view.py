"""Tables as the templates of a page print them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from gibbon.report.content.layout import Column, Table, TableCell

_SHORT: Final = 25  # characters; longer texts are broken into lines
_FILTERED_FROM: Final = 12  # rows; shorter tables need no search


@dataclass(frozen=True)
class CellView:
    """A cell of a page: its text, its CSS class, the key to sort by, and the length of its bar."""

    text: str
    detail: str
    look: str
    key: str
    bar: float | None


@dataclass(frozen=True)
class TableView:
    """A table of a page.

    Args:
        ident: the table's id in the page.
        caption: its title.
        hidden_caption: whether only screen readers read the caption.
        more: whether some columns are hidden until the reader opens all columns.
        filtered: whether the table is long enough for its rows to be searched.
    """

    ident: str
    caption: str
    hidden_caption: bool
    columns: tuple[Column, ...]
    rows: tuple[tuple[CellView, ...], ...]
    notes: tuple[str, ...]
    more: bool
    filtered: bool


class Views:
    """Makes the views of a page's tables, each with an id of its own."""

    def __init__(self) -> None:
        self._tables = 0

    def table(self, table: Table, *, under: str = "") -> TableView:
        """Returns the view of a table without its empty columns.

        A caption that repeats the heading ``under`` which the table stands is hidden.
        """
        self._tables += 1
        shown = table.filled()
        return TableView(
            ident=f"table-{self._tables}",
            caption=capitalised(table.title),
            hidden_caption=table.title == under,
            columns=shown.columns,
            rows=tuple(tuple(map(_cell, row, shown.columns)) for row in shown.rows),
            notes=table.notes,
            more=any(column.level > 1 for column in shown.columns),
            filtered=len(table.rows) >= _FILTERED_FROM,
        )


def capitalised(text: str) -> str:
    """Returns a text with a capital first letter; the case of all others stays."""
    return text[:1].upper() + text[1:]


def _cell(cell: TableCell, column: Column) -> CellView:
    look = cell.kind.replace(" ", "-") or ("short" if len(cell.text) <= _SHORT else "long")
    value = cell.value if column.align == "right" else None
    key = "" if value is None else f"{value:.10g}"
    return CellView(cell.text, cell.detail, look, key, value if column.bar else None)


def code_and_text(text: str) -> Iterator[tuple[bool, str]]:
    """Yields the parts of a note, and whether each was between backticks.

    >>> list(code_and_text("`fgsm`: L∞"))
    [(True, 'fgsm'), (False, ': L∞')]
    """
    for place, part in enumerate(text.split("`")):
        if part:
            yield place % 2 == 1, part
