"""Receives the progress of a run."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Receives the progress of a run.  Work is measured in passes of examples through a model."""

    def note(self, text: str) -> None:
        """Receives a sentence that the user should read."""

    def checking(self, examples: int, *, of: int, dataset: str) -> None:
        """Receives how many more of a dataset's examples were checked to be readable."""

    def start(self, *, work: int, cells: int, reused: int) -> None:
        """Receives the work that is planned, its number of cells, and that of reused cells."""

    def advance(self, work: int, *, doing: str) -> None:
        """Receives how much more work is done; ``doing`` names the job."""

    def failed(self, cell: str, *, error: str) -> None:
        """Receives a cell that failed; the run continues with the others."""


class SilentProgress:
    """A `Progress` that reports nothing."""

    def note(self, text: str) -> None:
        """Does nothing."""

    def checking(self, examples: int, *, of: int, dataset: str) -> None:
        """Does nothing."""

    def start(self, *, work: int, cells: int, reused: int) -> None:
        """Does nothing."""

    def advance(self, work: int, *, doing: str) -> None:
        """Does nothing."""

    def failed(self, cell: str, *, error: str) -> None:
        """Does nothing."""


SILENT = SilentProgress()
