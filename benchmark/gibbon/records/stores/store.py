"""The interface of stores, which hold a run's folder or a file."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path


def say_nothing(text: str) -> None:
    """Ignores a sentence about a store."""


class Store(ABC):
    """The place of a run's folder, or of a file; ``str`` returns it as it is shown to users."""

    @abstractmethod
    def __str__(self) -> str: ...

    @abstractmethod
    def reading(self) -> AbstractContextManager[Path]:
        """Yields the path of the folder or file, complete, within a ``with`` block.

        Nothing that is written there is kept, unless the store is local.
        """

    @abstractmethod
    def writing(self, note: Callable[[str], None] = say_nothing) -> AbstractContextManager[Path]:
        """Yields the path of a run's folder, for one run at a time, within a ``with`` block.

        What `gibbon.core.files` writes and removes there is in the store when the call returns;
        everything else is at the end of the block.  ``note`` receives sentences, such as that the
        store does not answer.

        Raises `RunFolderError` if another run uses the store, or if it can't be read or written.
        """

    @abstractmethod
    def writing_file(self) -> AbstractContextManager[Path]:
        """Yields a path for a new file; the file is in the store at the end of the ``with`` block.

        Raises `RunFolderError` if it can't be written.
        """

    @abstractmethod
    def adding(self) -> AbstractContextManager[Path]:
        """Yields a folder, whose files are added to this one at the end of the ``with`` block.

        Raises `RunFolderError` if they can't be written.
        """

    @abstractmethod
    def child(self, name: str) -> Store:
        """Returns the store of a file or folder in this one."""
