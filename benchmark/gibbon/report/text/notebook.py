"""The tables of a run as HTML, as a notebook shows them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from html import escape

from gibbon.report.content.layout import FAILED, Chapter, Table

SOME = 1  # the level of columns for which a notebook has room
_RED = "color: #b00020; font-weight: bold"


def chapters_html(chapters: Iterable[Chapter], *, level: int = SOME) -> str:
    """Returns tables and notes as one ``div``, with the tables' columns up to a level."""
    parts = [part for chapter in chapters for part in _chapter(chapter, level)]
    return "\n".join(["<div>", *parts, "</div>"])


def table_html(table: Table, *, caption: str, level: int = SOME) -> str:
    """Returns one table with its caption; a column with nothing in it is left out."""
    shown = [
        index
        for index, column in enumerate(table.columns)
        if column.level <= level and any(row[index].text for row in table.rows)
    ]
    heads = "".join(
        f'<th scope="col" style="text-align: {table.columns[index].align}">'
        f"{escape(table.columns[index].header)}</th>"
        for index in shown
    )
    lines = [f"<table>\n<caption>{escape(caption)}</caption>", f"<thead><tr>{heads}</tr></thead>"]
    rows = ("".join(_data(table, row[index].text, index) for index in shown) for row in table.rows)
    return "\n".join(
        [*lines, "<tbody>", *(f"<tr>{row}</tr>" for row in rows), "</tbody>", "</table>"]
    )


def _data(table: Table, text: str, index: int) -> str:
    style = f"text-align: {table.columns[index].align}"
    style += f"; {_RED}" if text == FAILED else ""
    return f'<td style="{style}">{escape(text)}</td>'


def _chapter(chapter: Chapter, level: int) -> Iterator[str]:
    for table in chapter.tables:
        place = f"{chapter.title} " if table.title.startswith("on ") else ""
        yield table_html(table, caption=place + table.title, level=level)
    for note in chapter.notes:
        yield f"<p>{escape(note)}</p>"
