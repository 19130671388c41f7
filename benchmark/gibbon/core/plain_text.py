"""Removes characters from texts that control a terminal or hide others, and shortens texts."""

from __future__ import annotations

SHOWN = 500  # characters of a value in an error message, at most


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
    r"""Returns a text as it is, without characters that control a terminal or hide others.

    >>> without_controls("a\n  \x1b[31mb\n")
    'a\n  ?[31mb\n'
    """
    return "".join(sign if sign.isprintable() or sign in "\t\n" else "?" for sign in text)


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
