"""What the templates of a page print: tables with what sorts them, and figures with their words."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from gibbon.report.content.layout import FAILED, NOT_RUN, NOTHING, Column, Table

_FRACTION: Final = re.compile(r"^([\d.,]+)\s*/\s*([\d.,]+)")
_NUMBER: Final = re.compile(r"[+-]?\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?", re.IGNORECASE)
_WORDS: Final = {
    FAILED: "failed",
    NOT_RUN: "not-run",
    "differs": "differs",
    "reproduced": "reproduced",
}
_SHORT = 25  # characters; longer texts are broken into lines
_FILTERED_FROM = 12  # rows; fewer are seen at a glance


@dataclass(frozen=True)
class CellView:
    """A cell: its text, a word that its look goes by, a number to sort by, and a bar's length."""

    text: str
    detail: str
    look: str
    key: str
    bar: float | None


@dataclass(frozen=True)
class TableView:
    """A table of a page.

    ``heard``: its caption is there for readers' ears alone; ``more``: some of its columns are shown
    only when asked for; ``filtered``: it is long enough for its rows to be searched.
    """

    ident: str
    caption: str
    heard: bool
    columns: tuple[Column, ...]
    rows: tuple[tuple[CellView, ...], ...]
    notes: tuple[str, ...]
    more: bool
    filtered: bool


class Views:
    """Makes views, and names each so that no two on a page are called the same."""

    def __init__(self) -> None:
        self._tables = 0

    def table(self, table: Table, *, under: str = "", bars: bool = False) -> TableView:
        """Returns the view of a table, without the columns that have nothing in them.

        ``under`` is the heading that it stands under: a title that only says that again is for
        readers' ears.  ``bars`` draws a bar under each rate of a column of errors.
        """
        self._tables += 1
        shown = [
            place
            for place in range(len(table.columns))
            if any(row[place].text for row in table.rows) or not table.rows
        ]
        columns = tuple(table.columns[place] for place in shown)
        return TableView(
            ident=f"table-{self._tables}",
            caption=capitalised(table.title),
            heard=table.title == under,
            columns=columns,
            rows=tuple(
                tuple(
                    _cell(row[place].text, row[place].detail, table.columns[place], bars=bars)
                    for place in shown
                )
                for row in table.rows
            ),
            notes=table.notes,
            more=any(column.level > 1 for column in columns),
            filtered=len(table.rows) >= _FILTERED_FROM,
        )


def capitalised(text: str) -> str:
    """Returns a text with a large first letter; names keep their case."""
    return text[:1].upper() + text[1:]


def sort_key(text: str) -> float | None:
    """Returns the number that a cell's text is sorted by, None where it is none.

    >>> sort_key("99.9 %"), sort_key("8/255") == 8 / 255, sort_key("−0.10"), sort_key("10,000")
    (99.9, True, -0.1, 10000.0)
    >>> sort_key("[88.8–90.0]"), sort_key("mean of 9,992"), sort_key("maxout"), sort_key("–")
    (88.8, 9992.0, None, None)
    """
    plain = text.replace("−", "-").strip()
    quotient = _FRACTION.match(plain)
    try:
        if quotient:
            one, two = (Fraction(part.replace(",", "")) for part in quotient.groups())
            return float(one / two)
    except (ValueError, ZeroDivisionError):
        return None
    found = _NUMBER.search(plain)
    return float(found[0].replace(",", "")) if found else None


def _cell(text: str, detail: str, column: Column, *, bars: bool) -> CellView:
    look = _WORDS.get(text, "nothing" if text == NOTHING else "")
    look = look or ("short" if len(text) <= _SHORT else "long")
    number = sort_key(text) if column.align == "right" and look != "long" else None
    bar = number if bars and number is not None and "error" in column.header else None
    return CellView(text, detail, look, "" if number is None else f"{number:.10g}", bar)


def code_and_text(text: str) -> Iterator[tuple[bool, str]]:
    """Yields the parts of a note, and whether each stood between backticks.

    >>> list(code_and_text("`fgsm`: L∞"))
    [(True, 'fgsm'), (False, ': L∞')]
    """
    for place, part in enumerate(text.split("`")):
        if part:
            yield place % 2 == 1, part
