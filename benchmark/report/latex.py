r"""The tables of a run as LaTeX with booktabs, ready to paste.

What is written compiles by itself, and in a paper that loads booktabs: the lines that make a
document of it are skipped there, so that the file can be ``\input`` as it is, or a table of it
pasted.  It is plain ASCII, for any engine.
"""

from __future__ import annotations

import re
import textwrap
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Final

from benchmark.records import RunRecord
from benchmark.report.contents import report_chapters
from benchmark.report.layout import Cell, Chapter, Table
from benchmark.report.views import code_and_text

_LINE: Final = 104  # characters in a line of footnotesize, in a column of 150 mm
_PAGE: Final = 48  # rows of a table that a page has room for
_HEAD: Final = 14  # characters in a line of a head
_LONG: Final = 44  # characters of a cell, from which on it is broken into lines
_GAP: Final = 2  # what the space between columns takes, in characters
_WAITING: Final = 8  # tables after which LaTeX is asked to put what waits on a page

_SPECIAL: Final = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "%": r"\%",
    "#": r"\#",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    "`": r"\textasciigrave{}",
    "ε": r"$\varepsilon$",
    "Δ": r"$\Delta$",
    "∞": r"$\infty$",
    "→": r"$\to$",
    "↓": r"$\downarrow$",
    "−": "$-$",
    "–": "--",
    "—": "---",
    "×": r"$\times$",
    "≤": r"$\le$",
    "≥": r"$\ge$",
    "†": r"\dag{}",
    "§": r"\S{}",
    "²": "$^2$",
    "…": r"\dots{}",
    "“": "``",
    "”": "''",
    "‘": "`",
    "’": "'",
    "µ": r"$\mu$",
    "σ": r"$\sigma$",
    "Σ": r"$\Sigma$",
    "∂": r"$\partial$",
    "∇": r"$\nabla$",
    "‖": r"$\|$",
}
_ACCENTS: Final = {
    "\u0300": r"\`", "\u0301": r"\'", "\u0302": r"\^", "\u0303": r"\~", "\u0304": r"\=",
    "\u0306": r"\u", "\u0307": r"\.", "\u0308": r'\"', "\u030a": r"\r", "\u030b": r"\H",
    "\u030c": r"\v", "\u0327": r"\c", "\u0328": r"\k",
}  # fmt: skip
_LETTERS: Final = {
    "ß": r"\ss{}", "æ": r"\ae{}", "Æ": r"\AE{}", "œ": r"\oe{}", "Œ": r"\OE{}",
    "ø": r"\o{}", "Ø": r"\O{}", "ł": r"\l{}", "Ł": r"\L{}", "ı": r"\i{}",
}  # fmt: skip

_BEFORE: Final = r"""% Tables of a run of Gibbon, for a document with \usepackage{booktabs}.
% This file compiles by itself too: without booktabs it makes a document of itself.
\ifcsname ver@booktabs.sty\endcsname\else
\documentclass{article}
\usepackage[T1]{fontenc}
\usepackage[a4paper,margin=18mm]{geometry}
\usepackage{booktabs}
\newcommand{\gibbonalone}{}
\begin{document}
\fi
"""
_AFTER: Final = r"\ifdefined\gibbonalone\end{document}\fi" + "\n"


def report_latex(record: RunRecord) -> str:
    """Returns all tables of a run as LaTeX, each a ``table`` with a caption and a label."""
    title = record.suite.title or record.suite.name
    parts = [_BEFORE, f"\\section*{{{escape(title)}}}\n"]
    for chapter in report_chapters(record):
        parts.extend(_chapter(chapter, prefix=_label(record.suite.name)))
    return "\n".join(parts) + "\n" + _AFTER


def escape(text: str) -> str:
    r"""Returns text on one line as ASCII for LaTeX; what it has no sign for becomes ``?``.

    >>> print(escape("99.9 % of $x_1$ at ε = 8/255, naïve"))
    99.9~\% of \$x\_1\$ at $\varepsilon$ = 8/255, na\"{\i}ve
    """
    line = " ".join(unicodedata.normalize("NFC", text).split())
    return re.sub(r"(?<=\d) (?=\\%)", "~", "".join(map(_sign, line)))


def table_latex(table: Table, *, caption: str, label: str) -> str:
    """Returns one table; a column with nothing in it, or for which there is no room, is left out.

    A table too long for a page, or too wide for a line whatever is left out, becomes several, each
    with its heads.
    """
    pages = [table.rows[at : at + _PAGE] for at in range(0, len(table.rows), _PAGE)] or [()]
    parts = [(form, rows) for form in _split(_fitting(table)) for rows in pages]
    written = []
    for number, (form, rows) in enumerate(parts, start=1):
        words = escape(caption) + (f" (part {number} of {len(parts)})" if parts[1:] else "")
        written.append(
            "\n".join(
                [
                    r"\begin{table}[!htbp]",
                    r"\centering\footnotesize",
                    r"\setlength{\tabcolsep}{3.5pt}",
                    f"\\caption{{{words}}}",
                    f"\\label{{{label}{'' if number == 1 else f'-{number}'}}}",
                    f"\\begin{{tabular}}{{{''.join(_align(form, each) for each in form.shown)}}}",
                    r"\toprule",
                    f"{' & '.join(_head(table.columns[each].header) for each in form.shown)} \\\\",
                    r"\midrule",
                    *(_line(form, row) for row in rows),
                    r"\bottomrule",
                    r"\end{tabular}",
                    *_below(table.notes),
                    r"\end{table}",
                    "",
                ]
            )
        )
    return "\n".join(written)


def _below(notes: tuple[str, ...]) -> Iterator[str]:
    """Yields notes as they stand below a table, inside its float: they are pasted with it."""
    if notes:
        yield r"\par\smallskip"
        yield r"\parbox{\linewidth}{\scriptsize\raggedright"
        yield from (f"{_prose(note)}\\\\" for note in notes[:-1])
        yield f"{_prose(notes[-1])}}}"


@dataclass(frozen=True)
class _Form:
    """How a table is written: its columns, with details or without."""

    table: Table
    shown: tuple[int, ...]
    details: bool

    def text(self, cell: Cell) -> str:
        return str(cell) if self.details else cell.text

    def widest(self, place: int) -> int:
        return max((len(self.text(row[place])) for row in self.table.rows), default=0)

    def room(self, place: int) -> int:
        """How many characters a column takes."""
        heads = map(len, _broken(self.table.columns[place].header))
        return _GAP + max(min(self.widest(place), _LONG), *heads)

    @property
    def width(self) -> int:
        """How many characters a line takes."""
        return sum(map(self.room, self.shown))


def _line(form: _Form, row: tuple[Cell, ...]) -> str:
    line = " & ".join(escape(form.text(row[place])) for place in form.shown)
    # After the end of a line LaTeX takes an opening bracket for an option.
    return ("{}" if line.startswith("[") else "") + line + r" \\"


def _fitting(table: Table) -> _Form:
    """Returns the fullest form that fits a line: fewer columns first, then no details."""
    filled = [
        place
        for place in range(len(table.columns))
        if not table.rows or any(row[place].text for row in table.rows)
    ]
    for level, details in ((2, True), (1, True), (0, True), (0, False)):
        shown = tuple(place for place in filled if table.columns[place].level <= level)
        form = _Form(table, shown, details)
        if form.width <= _LINE:
            break
    return form


def _split(form: _Form) -> list[_Form]:
    """Returns a form in parts that fit a line, each with the columns that name its rows."""
    names = [*takewhile(lambda each: form.table.columns[each].align == "left", form.shown)]
    parts: list[list[int]] = [[]]
    room = taken = sum(map(form.room, names))
    for place in form.shown[len(names) :]:
        if taken + form.room(place) > _LINE and parts[-1]:
            parts.append([])
            taken = room
        parts[-1].append(place)
        taken += form.room(place)
    return [replace(form, shown=(*names, *part)) for part in parts]


def _align(form: _Form, place: int) -> str:
    if form.table.columns[place].align == "left" and form.widest(place) > _LONG:
        return r"p{55mm}"
    return form.table.columns[place].align[0]


def _broken(header: str) -> list[str]:
    return textwrap.wrap(header, _HEAD, break_long_words=False) or [""]


def _head(header: str) -> str:
    lines = [escape(line) for line in _broken(header)]
    stacked = " \\\\ ".join(lines)
    return stacked if len(lines) == 1 else f"\\shortstack[b]{{{stacked}}}"


def _chapter(chapter: Chapter, *, prefix: str) -> Iterator[str]:
    yield f"\\subsection*{{{escape(chapter.title)}}}\n"
    yield from _items(chapter.notes)
    for number, table in enumerate(chapter.tables, start=1):
        place = "" if table.title == chapter.title else f", {table.title}"
        label = f"tab:{prefix}-{_label(chapter.title)}-{number}"
        yield table_latex(table, caption=f"{chapter.title}{place}.", label=label)
        if number % _WAITING == 0:
            yield "\\ifdefined\\gibbonalone\\clearpage\\fi\n"


def _items(notes: Iterable[str]) -> Iterator[str]:
    lines = [f"\\item {_prose(note)}" for note in notes]
    if lines:
        yield "\n".join([r"\begin{itemize}\footnotesize", *lines, r"\end{itemize}", ""])


def _prose(note: str) -> str:
    return "".join(
        f"\\texttt{{{escape(part)}}}" if code else escape(part)
        for code, part in code_and_text(note)
    )


def _label(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _sign(sign: str) -> str:
    if sign in _SPECIAL:
        return _SPECIAL[sign]
    if sign in _LETTERS:
        return _LETTERS[sign]
    if sign.isascii():
        return sign if sign.isprintable() else " "
    taken_apart = unicodedata.normalize("NFD", sign)
    letter, accent = taken_apart[0], taken_apart[1:]
    if accent in _ACCENTS and letter.isascii():
        base = {"i": r"\i", "j": r"\j"}.get(letter, letter)
        return f"{_ACCENTS[accent]}{{{base}}}"
    return "?"
