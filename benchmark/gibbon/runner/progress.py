"""What a run tells its caller while it works."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Told how far a run is.  Work is measured in passes through a model, by example."""

    def note(self, text: str) -> None:
        """Something that the user should know before anything is computed: a sentence."""

    def checking(self, examples: int, *, of: int, dataset: str) -> None:
        """So many more of a dataset's examples were looked at, whether they can be read."""

    def start(self, *, work: int, cells: int, reused: int) -> None:
        """The plan is made: this much work, in so many cells; so many more are there already."""

    def advance(self, work: int, *, doing: str) -> None:
        """So much more is done; ``doing`` says on what."""

    def failed(self, cell: str, *, error: str) -> None:
        """A cell went wrong; the others go on."""


class Silent:
    """Tells nobody."""

    def note(self, text: str) -> None:
        """Says nothing."""

    def checking(self, examples: int, *, of: int, dataset: str) -> None:
        """Says nothing."""

    def start(self, *, work: int, cells: int, reused: int) -> None:
        """Says nothing."""

    def advance(self, work: int, *, doing: str) -> None:
        """Says nothing."""

    def failed(self, cell: str, *, error: str) -> None:
        """Says nothing."""
