"""Notes under a table."""

from __future__ import annotations


class Footnotes:
    """The notes under a table, each with one mark, however often it is referred to."""

    def __init__(self) -> None:
        self._marks: dict[str, str] = {}

    def marks(self, *notes: str) -> str:
        """Returns the marks of these notes, which are added; empty notes have none."""
        given = [note for note in notes if note]
        return " ".join(self._marks.setdefault(n, f"({len(self._marks) + 1})") for n in given)

    def lines(self) -> tuple[str, ...]:
        """Returns the notes, each after its mark."""
        return tuple(f"{mark} {note}" for note, mark in self._marks.items())
