"""The tables, curves and pictures of a run as HTML for notebooks."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator
from html import escape
from pathlib import Path

from gibbon.records.run import RunRecord
from gibbon.report.content.chart_data.curves import panels
from gibbon.report.content.chart_data.distance_curves import whole_curves
from gibbon.report.content.chart_data.gallery import Example, StoredGallery, galleries, gallery_view
from gibbon.report.content.parts.flag_groups import FlagGroup, FlagLine
from gibbon.report.content.parts.layout import Chapter, Column, Table, TableCell
from gibbon.report.content.parts.lookup import RunLookup
from gibbon.report.content.summary.opening import Opening, opening
from gibbon.report.text.terminal import short_chapters

GALLERIES = 3  # models whose examples are shown
EXAMPLES = 4  # of each
SIDE = 84  # pixels of a picture
SOME = 1  # the highest level of columns that a notebook shows
_RED = "color: #b00020; font-weight: bold"


def record_html(record: RunRecord, folder: Path | None = None) -> str:
    """Returns the first lines of a report and its most important tables as one ``div``.

    With the run's folder they are followed by error against ε, if an attack has several, and by
    pictures of examples, if the run has some.
    """
    parts = [part for each in short_chapters(record) for part in _chapter(each, SOME)]
    shown = () if folder is None else (*_curves(record, folder), *_pictures(record, folder))
    return "\n".join(["<div>", opening_html(opening(record)), *parts, *shown, "</div>"])


def _curves(record: RunRecord, folder: Path) -> Iterator[str]:
    drawn = panels(record, whole=whole_curves(record, folder))
    if not drawn:
        return
    from gibbon.report.figures.plots import error_curves, house_style, rendered

    with house_style():
        picture = rendered(error_curves(drawn), ".png", "")
    source = f"data:image/png;base64,{b64encode(picture).decode()}"
    yield f'<p><img src="{source}" alt="Error against epsilon" style="max-width: 100%"/></p>'


def _pictures(record: RunRecord, folder: Path) -> Iterator[str]:
    results = RunLookup(record)
    last = {each.model: each for each in galleries(results, folder) if each.gallery is not None}
    for each in list(last.values())[:GALLERIES]:
        if each.gallery is None:
            continue
        view = gallery_view(each.model, each.condition, each.gallery, _classes(record, each))
        examples = [example for row in view.rows for example in row.examples][:EXAMPLES]
        title = escape(f"{each.model}, {each.condition.attack} at ε = {each.condition.epsilon}")
        rows = "".join(map(_example, examples))
        caption = f"<caption>Examples: {title}; clean, change, adversarial</caption>"
        yield f"<table>{caption}<tbody>{rows}</tbody></table>"


def _classes(record: RunRecord, stored: StoredGallery) -> tuple[str, ...]:
    named = {card.name: tuple(card.classes) for card in record.datasets}
    return named.get(stored.experiment.dataset.name, ())


def _example(example: Example) -> str:
    pictures = "".join(
        f'<td><img src="{each}" alt="" width="{SIDE}" style="image-rendering: pixelated"/></td>'
        for each in example.pictures
    )
    before = escape(str(example.before))
    words = f"{escape(example.title)}<br/>{before}<br/>→ {escape(str(example.after))}"
    return f'<tr>{pictures}<td style="text-align: left">{words}</td></tr>'


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
