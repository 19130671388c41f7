"""Output of the command line: texts without characters that control a terminal."""

from __future__ import annotations

import typer

from gibbon.core.plain_text import without_controls


def say(text: str, *, err: bool = False) -> None:
    """Prints a text, on stderr with ``err``, without characters that control a terminal."""
    typer.echo(without_controls(text), err=err)


def print_lines(lines: list[tuple[str, str]]) -> None:
    """Prints names and what is said of each, in two columns."""
    width = max(len(name) for name, _ in lines)
    for name, summary in lines:
        say(f"{name:<{width}}  {summary}".rstrip())
