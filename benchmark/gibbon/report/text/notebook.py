"""The tables of a run as HTML for notebooks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from html import escape

from gibbon.report.content.layout import Chapter, Column, Table, TableCell

SOME = 1  # the highest level of columns that a notebook shows
_RED = "color: #b00020; font-weight: bold"


def chapters_html(chapters: Iterable[Chapter], *, level: int = SOME) -> str:
    """Returns tables and notes as one ``div``, with columns up to a level."""
    parts = [part for chapter in chapters for part in _chapter(chapter, level)]
    return "\n".join(["<div>", *parts, "</div>"])


def table_html(table: Table, *, caption: str, level: int = SOME) -> str:
    """Returns one table with its caption, without empty columns."""
    shown = table.filled(level=level)
    heads = "".join(
        f'<th scope="col" style="text-align: {column.align}">{escape(column.header)}</th>'
        for column in shown.columns
    )
    lines = [f"<table>\n<caption>{escape(caption)}</caption>", f"<thead><tr>{heads}</tr></thead>"]
    rows = ("".join(map(_data, row, shown.columns)) for row in shown.rows)
    return "\n".join(
        [*lines, "<tbody>", *(f"<tr>{row}</tr>" for row in rows), "</tbody>", "</table>"]
    )


def _data(cell: TableCell, column: Column) -> str:
    style = f"text-align: {column.align}{f'; {_RED}' if cell.kind == 'failed' else ''}"
    return f'<td style="{style}">{escape(cell.text)}</td>'


def _chapter(chapter: Chapter, level: int) -> Iterator[str]:
    for table in chapter.tables:
        yield table_html(table, caption=chapter.caption(table), level=level)
    for note in chapter.notes:
        yield f"<p>{escape(note)}</p>"
