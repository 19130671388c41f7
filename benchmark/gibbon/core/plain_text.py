"""Removes characters from texts that control a terminal or hide others, and shortens texts."""

from __future__ import annotations

import re

from gibbon.core.endings import ends_the_process

SHOWN = 500  # characters of a value in an error message, at most
STORED = 20_000  # characters of a message or a traceback in a record, at most
_FORMULA = ("=", "+", "-", "@", "\t", "\n")  # what formulas of spreadsheets begin with
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?:/\d+)?")


def printable(text: str) -> str:
    r"""Returns a text on one line, without characters that control a terminal or hide others.

    >>> printable("a\n\x1b[31mb")
    'a ?[31mb'
    """
    line = " ".join(text.split())
    return "".join(sign if sign.isprintable() else "?" for sign in line)


def printable_lines(text: str) -> str:
    r"""Returns a text with its lines, each without characters that control a terminal.

    >>> printable_lines("a\n\x1b[31mb")
    'a\n?[31mb'
    """
    lines = (line.rstrip() for line in text.strip("\n").splitlines())
    return "\n".join(
        "".join(sign if sign.isprintable() else "?" for sign in line) for line in lines
    )


def without_controls(text: str) -> str:
    r"""Returns a text without characters that control a terminal or hide others; line breaks stay.

    >>> without_controls("a\n  \x1b[31mb\n")
    'a\n  ?[31mb\n'
    """
    return "".join(sign if sign.isprintable() or sign in "\t\n" else "?" for sign in text)


def csv_cell(text: str) -> str:
    """Returns a text for a cell of CSV, which a spreadsheet does not take for a formula.

    >>> csv_cell("=1+1"), csv_cell("-0.5"), csv_cell("pgd-2")
    ("'=1+1", '-0.5', 'pgd-2')
    """
    plain = without_controls(text)
    formula = plain.startswith(_FORMULA) and not _NUMBER.fullmatch(plain)
    return f"'{plain}" if formula else plain


def shown(value: object) -> str:
    """Returns the ``repr`` of a value from outside, shortened, for an error message.

    >>> shown("a" * 5000)[-22:]
    '... (5,002 characters)'
    """
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # of an integer over 4,300 digits, of a deep nest
        return f"a very long or deep {type(value).__name__}"
    return shortened(text)


def shortened(text: str) -> str:
    """Returns a text of at most a few lines, whatever its length."""
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}... ({len(text):,} characters)"


def message_of(error: BaseException) -> str:
    r"""Returns the message of an exception of other people's code, whose ``str`` may raise.

    It can be stored: lone surrogates are written as escapes.

    >>> message_of(ValueError("no such class \udce9"))
    'no such class \\udce9'
    """
    try:
        return cut(str(error)).encode(errors="backslashreplace").decode()
    except BaseException as other:  # an exception's __str__ may raise any other
        if ends_the_process(other):
            raise
        return "its message can't be read"


def cut(text: str) -> str:
    """Returns a text of at most `STORED` characters, without its middle if it is longer.

    >>> len(cut("a" * 10**6)) <= STORED
    True
    """
    if len(text) <= STORED:
        return text
    half = STORED // 2 - 20
    return f"{text[:half]} ... ({len(text):,} characters) ... {text[-half:]}"
