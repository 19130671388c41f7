r"""The tables of a run as LaTeX with booktabs, ready to paste.

The file compiles by itself, and by ``\input`` in a paper that loads booktabs, which skips the lines
that make it a document.  Single tables can be pasted.  It is plain ASCII, for any engine.
"""

from __future__ import annotations

import re
import textwrap
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Final

from gibbon.records.flag_kinds import MEANINGS
from gibbon.records.run import RunRecord
from gibbon.report.content.chapters import report_chapters
from gibbon.report.content.parts.flag_groups import FlagGroup, FlagLine
from gibbon.report.content.parts.layout import Chapter, Table, TableCell
from gibbon.report.content.summary.opening import Opening, opening
from gibbon.report.html.table_view import code_and_text

_LINE: Final = 104  # characters in a line of footnotesize, in a column of 150 mm
_PAGE: Final = 48  # lines of a table in footnotesize on one page
_SMALL_PAGE: Final = 60  # in scriptsize
_NOTE: Final = 140  # characters in a line of a note
_HEAD: Final = 14  # characters in a line of a head
_SMALL_LINE: Final = 118  # characters in a line of scriptsize
_SMALL_HEAD: Final = 8
_LONG: Final = 44  # characters; a longer cell is broken into lines
_SHORT: Final = 20  # the limit in tables that are too wide otherwise
_LONG_NUMBER: Final = 24  # the limit for words in a column of numbers
_WORDS: Final = 24  # characters in a line of those words
_GAP: Final = 2  # the width of the space between columns, in characters
_BREAK: Final = "\\\\{}\n"  # the braces end what LaTeX may read as an option of the line break
_WAITING: Final = 8  # tables after which LaTeX must place all floats

_SPECIAL: Final = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "%": r"\%",
    "#": r"\#", "_": r"\_", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': "''",
    "`": r"\textasciigrave{}", "ε": r"$\varepsilon$", "Δ": r"$\Delta$", "∞": r"$\infty$",
    "→": r"$\to$", "↓": r"$\downarrow$", "−": "$-$", "–": "--", "—": "---", "×": r"$\times$",
    "≤": r"$\le$", "≥": r"$\ge$", "†": r"\dag{}", "§": r"\S{}", "²": "$^2$", "…": r"\dots{}",
    "“": "``", "”": "''", "‘": "`", "’": "'", "µ": r"$\mu$", "σ": r"$\sigma$", "Σ": r"$\Sigma$",
    "∂": r"$\partial$", "∇": r"$\nabla$", "‖": r"$\|$", "‡": r"\ddag{}",
}  # fmt: skip
_ACCENTS: Final = {
    "\u0300": r"\`", "\u0301": r"\'", "\u0302": r"\^", "\u0303": r"\~", "\u0304": r"\=",
    "\u0306": r"\u", "\u0307": r"\.", "\u0308": r'\"', "\u030a": r"\r", "\u030b": r"\H",
    "\u030c": r"\v", "\u0327": r"\c", "\u0328": r"\k",
}  # fmt: skip
_LETTERS: Final = {
    "ß": r"\ss{}", "æ": r"\ae{}", "Æ": r"\AE{}", "œ": r"\oe{}", "Œ": r"\OE{}",
    "ø": r"\o{}", "Ø": r"\O{}", "ł": r"\l{}", "Ł": r"\L{}", "ı": r"\i{}",
}  # fmt: skip

BEFORE: Final = r"""% Tables of a run of Gibbon, for a document with \usepackage{booktabs}.
% This file compiles by itself too: without booktabs it makes a document of itself.
\ifcsname ver@booktabs.sty\endcsname\else
\documentclass{article}
\usepackage[T1]{fontenc}
\usepackage[a4paper,margin=15mm]{geometry}
\usepackage{booktabs}
\newcommand{\gibbonalone}{}
\begin{document}
\fi
"""
AFTER: Final = r"\ifdefined\gibbonalone\end{document}\fi" + "\n"


def report_latex(record: RunRecord) -> str:
    """Returns all tables of a run as LaTeX, each a ``table`` with a caption and a label."""
    title = record.suite.title or record.suite.name
    parts = [BEFORE, f"\\section*{{{escape(title)}}}\n", _opening(opening(record))]
    for chapter in report_chapters(record):
        parts.extend(_chapter(chapter, prefix=label_of(record.suite.name)))
    return "\n".join(parts) + "\n" + AFTER


def escape(text: str) -> str:
    r"""Returns text on one line as ASCII for LaTeX; unknown characters become ``?``.

    >>> print(escape("99.9 % of $x_1$ at ε = 8/255, naïve"))
    99.9~\% of \$x\_1\$ at $\varepsilon$ = 8/255, na\"{\i}ve
    """
    line = " ".join(unicodedata.normalize("NFC", text).split())
    return re.sub(r"(?<=\d) (?=\\%)", "~", "".join(map(_sign, line)))


def table_latex(table: Table, *, caption: str, label: str) -> str:
    """Returns one table without empty columns and without columns for which there is no room.

    A table that is too long for a page, or still too wide for a line, becomes several tables.
    Notes for which the page has no room follow as a paragraph, which can be broken.
    """
    parts = [(form, page) for form in _split(_fullest_form(table)) for page in _pages(form)]
    within = len(parts) == 1 and _height(*parts[0]) + _lines_of(table.notes) <= parts[0][0].page
    written = []
    for number, (form, page) in enumerate(parts, start=1):
        words = escape(caption) + (f" (part {number} of {len(parts)})" if parts[1:] else "")
        heads = " & ".join(_stacked(form.heads(place), "b") for place in form.shown)
        aligned = "".join(form.table.columns[place].align[0] for place in form.shown)
        written.append(
            "\n".join(
                [
                    r"\begin{table}[!htbp]",
                    rf"\centering\{'scriptsize' if form.small else 'footnotesize'}",
                    r"\setlength{\tabcolsep}{3.5pt}",
                    f"\\caption{{{words}}}",
                    f"\\label{{{label}{'' if number == 1 else f'-{number}'}}}",
                    f"\\begin{{tabular}}{{{aligned}}}",
                    r"\toprule",
                    f"{heads} \\\\",
                    r"\midrule",
                    *(_line(form, row) for row in page),
                    r"\bottomrule",
                    r"\end{tabular}",
                    *(_below(table.notes) if within else ()),
                    r"\end{table}",
                    "",
                ]
            )
        )
    if table.notes and not within:
        written.append("\n".join(_after(table.notes, label=label)))
    return "\n".join(written)


_Rows = tuple[tuple[TableCell, ...], ...]


def _pages(form: _Form) -> list[_Rows]:
    """Returns the rows of a form in parts that fit on a page."""
    pages: list[list[tuple[TableCell, ...]]] = [[]]
    taken = 0
    for row in form.table.rows:
        height = _height(form, (row,))
        if pages[-1] and taken + height > form.page:
            pages.append([])
            taken = 0
        pages[-1].append(row)
        taken += height
    return [tuple(page) for page in pages]


def _height(form: _Form, rows: _Rows) -> int:
    """Returns the number of lines that rows take."""
    return sum(max(len(form.lines(row, place)) for place in form.shown) for row in rows)


def _lines_of(notes: tuple[str, ...]) -> int:
    """Returns about how many lines notes take."""
    return sum(1 + len(note) // _NOTE for note in notes)


def _below(notes: tuple[str, ...]) -> Iterator[str]:
    """Yields the notes below a table, inside its float, so that they are pasted with it."""
    if notes:
        yield r"\par\smallskip"
        yield r"\parbox{\linewidth}{\scriptsize\raggedright"
        yield f"{_on_own_lines(notes)}}}"


def _after(notes: tuple[str, ...], *, label: str) -> Iterator[str]:
    """Yields the notes as a paragraph after a table."""
    yield rf"{{\scriptsize\raggedright\noindent Notes on table~\ref{{{label}}}:\\"
    yield rf"{_on_own_lines(notes)}\par}}"
    yield ""


def _on_own_lines(notes: tuple[str, ...]) -> str:
    return "\\\\\n".join(map(_prose, notes))


# The highest level of columns, whether details are printed, whether the font is small, and the
# longest text that is not broken into lines.
_FORMS: Final = (
    *((2, True, False, _LONG), (1, True, False, _LONG), (0, True, False, _LONG)),
    *((0, False, False, _LONG), (0, False, True, _LONG)),
    *((0, True, True, _SHORT), (0, False, True, _SHORT)),
)


@dataclass(frozen=True)
class _Form:
    """The form of a table: its columns, whether it has details, and its font size."""

    table: Table
    shown: tuple[int, ...]
    details: bool
    small: bool
    long: int

    @property
    def line(self) -> int:
        """The number of characters in a line."""
        return _SMALL_LINE if self.small else _LINE

    @property
    def page(self) -> int:
        """The number of lines on a page."""
        return _SMALL_PAGE if self.small else _PAGE

    def left(self, place: int) -> bool:
        return self.table.columns[place].align == "left"

    def lines(self, row: tuple[TableCell, ...], place: int) -> list[str]:
        """Returns the lines of a cell."""
        text = str(row[place]) if self.details else row[place].marked
        most, line = (self.long, self.long) if self.left(place) else (_LONG_NUMBER, _WORDS)
        if len(text) <= most:
            return [text]
        kept = textwrap.wrap(text.replace(" %", "\u00a0%"), line, break_on_hyphens=False)
        return [each.replace("\u00a0", " ") for each in kept]

    def room(self, place: int) -> int:
        """Returns the width of a column in characters."""
        cells = (len(line) for row in self.table.rows for line in self.lines(row, place))
        return _GAP + max(*cells, *map(len, self.heads(place)), 0)

    def heads(self, place: int) -> list[str]:
        header = self.table.columns[place].header
        return textwrap.wrap(
            header, _SMALL_HEAD if self.small else _HEAD, break_long_words=False
        ) or [""]

    def cell(self, row: tuple[TableCell, ...], place: int) -> str:
        lines = self.lines(row, place)
        if self.left(place) and lines[1:]:
            return rf"\begin{{tabular}}[t]{{@{{}}l@{{}}}}{_on_lines(lines)}\end{{tabular}}"
        return _stacked(lines, "r")


def _line(form: _Form, row: tuple[TableCell, ...]) -> str:
    return _no_option(" & ".join(form.cell(row, place) for place in form.shown)) + r" \\"


def _fullest_form(table: Table) -> _Form:
    """Returns the fullest form that fits: fewer columns, then no details, then a small font."""
    for level, details, small, long in _FORMS:
        filled = table.filled(level=level)
        form = _Form(filled, tuple(range(len(filled.columns))), details, small, long)
        if sum(map(form.room, form.shown)) <= form.line:
            return form
    return replace(form, small=False, long=_LONG)


def _split(form: _Form) -> list[_Form]:
    """Returns the form in parts that fit into a line, each with the columns that name its rows."""
    first = [*takewhile(lambda each: not form.left(each), form.shown)][:1]  # such as a section
    names = [*first, *takewhile(form.left, form.shown[len(first) :])]
    if names == first:
        names = []
    parts: list[list[int]] = [[]]
    room = taken = sum(map(form.room, names))
    for place in form.shown[len(names) :]:
        if taken + form.room(place) > form.line and parts[-1]:
            parts.append([])
            taken = room
        parts[-1].append(place)
        taken += form.room(place)
    return [replace(form, shown=(*names, *part)) for part in parts]


def _stacked(lines: list[str], place: str) -> str:
    stacked = _on_lines(lines)
    return stacked if len(lines) == 1 else f"\\shortstack[{place}]{{{stacked}}}"


def _on_lines(lines: list[str]) -> str:
    return " \\\\ ".join(_no_option(escape(line)) for line in lines)


def _no_option(line: str) -> str:
    # LaTeX reads an opening bracket after the end of a line as an option.
    return ("{}" if line.startswith("[") else "") + line


def _chapter(chapter: Chapter, *, prefix: str) -> Iterator[str]:
    yield f"\\subsection*{{{escape(chapter.title)}}}\n"
    items = [
        f"\\item {text}" for text in (*map(_flags, chapter.flags), *map(_prose, chapter.notes))
    ]
    if items:
        yield "\n".join([r"\begin{itemize}\footnotesize", *items, r"\end{itemize}", ""])
    for number, table in enumerate(chapter.tables, start=1):
        place = "" if table.title == chapter.title else f", {table.title}"
        label = f"tab:{prefix}-{label_of(chapter.title)}-{number}"
        yield table_latex(table, caption=f"{chapter.title}{place}.", label=label)
        if number % _WAITING == 0:
            yield "\\ifdefined\\gibbonalone\\clearpage\\fi\n"


def _opening(first: Opening) -> str:
    """Returns the first lines of a report; reasons not to use its numbers are in a frame."""
    lines = [rf"\textbf{{{escape(first.title)}}}: {_prose(first.text)}"]
    lines += [
        rf"\texttt{{{escape(each.kind)}}}: {_prose(each.summary)}. {_prose(each.advice)}"
        for each in first.reasons
    ]
    text = _BREAK.join([*lines, *map(_prose, first.notes)])
    if first.reasons:
        width = r"\dimexpr\linewidth-2\fboxsep-2\fboxrule\relax"
        return f"\\noindent\\fbox{{\\parbox{{{width}}}{{\\raggedright {text}}}}}\n"
    return f"{{\\raggedright\\noindent {text}\\par}}\n"


def _flags(group: FlagGroup) -> str:
    status = group.status.capitalize()
    meaning = "" if group.accepted else f" ({MEANINGS[group.severity]})"
    parts = [rf"\textbf{{{escape(status)}}}{_spaced(meaning)}: \texttt{{{escape(group.kind)}}},"]
    title = " ".join([*parts, f"{_prose(group.summary)}."])
    seen = (part for line in group.lines for part in (f"{_prose(line.text)}.", *_settling(line)))
    return _BREAK.join([title, *seen, *_settling(group)])


def _settling(of: FlagGroup | FlagLine) -> Iterator[str]:
    """Yields advice, suite lines and source, each on a line."""
    if of.advice:
        yield f"What to do: {_prose(of.advice)}"
    for line in filter(str.strip, of.suite.splitlines()):
        yield _code(line)
    if of.source:
        yield f"Source: {_prose(of.source)}."


def _prose(note: str) -> str:
    return "".join(_code(part) if code else _spaced(part) for code, part in code_and_text(note))


def _spaced(part: str) -> str:
    """Returns a part of a text, escaped, with the spaces at its ends."""
    before, after = (" " if end.isspace() else "" for end in (part[:1], part[-1:]))
    return f"{before}{escape(part)}{after}"


def _code(text: str) -> str:
    # Quotation marks of code are straight.
    straight = escape(text).replace("''", r"\char34{}")
    return rf"\texttt{{{straight}}}"


def label_of(text: str) -> str:
    """Returns a text as a part of a label: small letters, digits and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _sign(sign: str) -> str:
    if written := _SPECIAL.get(sign) or _LETTERS.get(sign):
        return written
    if sign.isascii():
        return sign if sign.isprintable() else " "
    decomposed = unicodedata.normalize("NFD", sign)
    letter, accent = decomposed[0], decomposed[1:]
    if accent in _ACCENTS and letter.isascii():
        base = {"i": r"\i", "j": r"\j"}.get(letter, letter)
        return f"{_ACCENTS[accent]}{{{base}}}"
    return "?"
