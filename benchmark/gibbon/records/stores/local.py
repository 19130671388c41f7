"""A folder or file on a disk of this machine, or on one that is mounted there."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from gibbon.records.stores.store import Store, say_nothing


@dataclass(frozen=True)
class LocalStore(Store):
    """A path of the file system: everything is written in place."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    def reading(self) -> AbstractContextManager[Path]:
        """Yields the path."""
        return nullcontext(self.path)

    def writing(self, note: Callable[[str], None] = say_nothing) -> AbstractContextManager[Path]:
        """Yields the path; `gibbon.runner.run_folder` locks the folder."""
        return nullcontext(self.path)

    def writing_file(self) -> AbstractContextManager[Path]:
        """Yields the path."""
        return nullcontext(self.path)

    def adding(self) -> AbstractContextManager[Path]:
        """Yields the path."""
        return nullcontext(self.path)

    def child(self, name: str) -> LocalStore:
        """Returns a file or folder in this folder."""
        return LocalStore(self.path / name)
