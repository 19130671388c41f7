"""The tables of a run as HTML for notebooks."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from gibbon.records.run import RunRecord
from gibbon.report.content.flag_groups import FlagGroup, FlagLine
from gibbon.report.content.layout import Chapter, Column, Table, TableCell
from gibbon.report.content.opening import Opening, opening
from gibbon.report.text.terminal import short_chapters

SOME = 1  # the highest level of columns that a notebook shows
_RED = "color: #b00020; font-weight: bold"


def record_html(record: RunRecord) -> str:
    """Returns the first lines of a report and its most important tables as one ``div``."""
    parts = [part for each in short_chapters(record) for part in _chapter(each, SOME)]
    return "\n".join(["<div>", opening_html(opening(record)), *parts, "</div>"])


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
    red = f"; {_RED}" if cell.mark or cell.kind == "failed" else ""
    style = f"text-align: {column.align}{red}"
    return f'<td style="{style}">{escape(cell.marked)}</td>'


def opening_html(first: Opening) -> str:
    """Returns the first lines of a report, in red if its numbers must not be used."""
    style = f' style="{_RED}"' if first.state == "unusable" else ""
    lines = [first.sentence, *(f"{each.kind}: {each.summary}" for each in first.reasons)]
    notes = "".join(f"<p>{escape(note)}</p>" for note in first.notes)
    return f"<p{style}>{'<br/>'.join(map(escape, lines))}</p>{notes}"


def _flags(group: FlagGroup) -> str:
    style = f' style="{_RED}"' if group.counts else ""
    title = escape(f"{group.status}: {group.kind}, {group.summary}")
    seen = "".join(
        f"<li>{escape(line.text)}{''.join(_settling(line))}</li>" for line in group.lines
    )
    parts = [f"<summary{style}>{title}</summary>", f"<ul>{seen}</ul>", *_settling(group)]
    return f"<details>{''.join(parts)}</details>"


def _settling(of: FlagGroup | FlagLine) -> Iterator[str]:
    if of.advice:
        yield f"<p>What to do: {escape(of.advice)}</p>"
    if of.suite:
        yield f"<pre>{escape(of.suite)}</pre>"
    if of.source:
        yield f"<p>Source: {escape(of.source)}</p>"


def _chapter(chapter: Chapter, level: int) -> Iterator[str]:
    for table in chapter.tables:
        yield table_html(table, caption=chapter.caption(table), level=level)
    yield from map(_flags, chapter.flags)
    for note in chapter.notes:
        yield f"<p>{escape(note)}</p>"
