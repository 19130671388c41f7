"""The progress object of a Python caller, whose exceptions are the caller's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from gibbon.core.registry import their_code
from gibbon.runner.run_progress.progress import Progress


class CallersProgress:
    """A `Progress` that passes everything on, and names the caller's object if that raises.

    Args:
        given: the caller's object.

    Its methods raise `RequestError`, which says that ``progress`` raised, and what.
    """

    def __init__(self, given: Progress) -> None:
        self._given = given

    def note(self, text: str) -> None:
        """Passes a sentence on."""
        with self._naming("note"):
            self._given.note(text)

    def checking(self, examples: int, *, of: int, dataset: str) -> None:
        """Passes the number of checked examples on."""
        with self._naming("checking"):
            self._given.checking(examples, of=of, dataset=dataset)

    def start(self, *, work: int, cells: int, reused: int) -> None:
        """Passes the planned work on."""
        with self._naming("start"):
            self._given.start(work=work, cells=cells, reused=reused)

    def advance(self, work: int, *, doing: str) -> None:
        """Passes the work that is done on."""
        with self._naming("advance"):
            self._given.advance(work, doing=doing)

    def failed(self, cell: str, *, error: str) -> None:
        """Passes a failed cell on."""
        with self._naming("failed"):
            self._given.failed(cell, error=error)

    @contextmanager
    def _naming(self, method: str) -> Iterator[None]:
        kind = type(self._given).__name__
        with their_code(f"progress: the caller's {kind} can't be used: its {method}(...) raised"):
            yield
