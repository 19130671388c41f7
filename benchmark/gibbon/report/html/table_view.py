"""Tables as the templates of a page print them."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Final

from gibbon.report.content.parts.layout import Column, Table, TableCell

_SHORT: Final = 25  # characters; longer texts are broken into lines
_FILTERED_FROM: Final = 12  # rows; shorter tables need no search
ALL_FLAGS: Final = "flags"  # the id of all flags in the page


@dataclass(frozen=True)
class CellView:
    """A cell of a page.

    Args:
        text: its text, without the mark.
        detail: what is printed after it.
        look: its CSS class.
        key: the key to sort by.
        bar: the length of its bar.
        mark: the mark of a number with a serious flag.
        place: id of the flag that the mark links to.
        links: the parts of a cell of flags, each with the id that it links to, which may be empty.
    """

    text: str
    detail: str
    look: str
    key: str
    bar: float | None
    mark: str
    place: str
    links: tuple[tuple[str, str], ...]


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


class TableViews:
    """Makes the views of a page's tables, each with its own id.

    ``kinds`` are the kinds of flags that the page shows, which cells link to.
    """

    def __init__(self, kinds: Collection[str] = ()) -> None:
        self._tables = 0
        self._kinds = frozenset(kinds)

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
            rows=tuple(tuple(map(self._cell, row, shown.columns)) for row in shown.rows),
            notes=table.notes,
            more=any(column.level > 1 for column in shown.columns),
            filtered=len(table.rows) >= _FILTERED_FROM,
        )

    def _cell(self, cell: TableCell, column: Column) -> CellView:
        value = cell.value if column.align == "right" else None
        look = cell.kind.replace(" ", "-") or ("short" if len(cell.text) <= _SHORT else "long")
        serious = [each.kind for each in cell.flags if each.severity == "serious"]
        return CellView(
            cell.text,
            cell.detail,
            {"flags": "kinds"}.get(look, f"{look} flagged" if cell.mark else look),
            "" if value is None else f"{value:.10g}",
            value if column.bar else None,
            cell.mark,
            flag_place(serious[0]) if serious and serious[0] in self._kinds else "",
            tuple(self._links(cell)),
        )

    def _links(self, cell: TableCell) -> Iterator[tuple[str, str]]:
        """Yields the kinds that a cell of flags names, or its text, each with its place."""
        for kind in cell.kinds:
            yield kind, flag_place(kind) if kind in self._kinds else ""
        if cell.kind == "flags" and cell.text and not cell.kinds:
            yield cell.text, ALL_FLAGS if self._kinds else ""


def flag_place(kind: str) -> str:
    """Returns the id of the flags of a kind in the page."""
    return f"flag-{kind}"


def capitalised(text: str) -> str:
    """Returns a text with a capital first letter; the case of all others stays."""
    return text[:1].upper() + text[1:]


def code_and_text(text: str) -> Iterator[tuple[bool, str]]:
    """Yields the parts of a note, and whether each was between backticks.

    >>> list(code_and_text("`fgsm`: L∞"))
    [(True, 'fgsm'), (False, ': L∞')]
    """
    for place, part in enumerate(text.split("`")):
        if part:
            yield place % 2 == 1, part
