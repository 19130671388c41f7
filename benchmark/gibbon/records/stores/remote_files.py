"""Reads and writes whole objects of a remote store, and waits for it if it does not answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from gibbon.core.errors import RunFolderError
from gibbon.core.plain_text import shortened

T = TypeVar("T")

WAITS: Final = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)  # seconds between attempts: a minute in all
# Causes that do not pass: by class, and by class name for those of libraries of one store.
LASTING: Final = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
LASTING_NAMES: Final = ("NoCredentialsError", "PartialCredentialsError", "ParamValidationError")


class RemoteFiles:
    """Objects of a remote store below a root.  A name is relative to the root, "" the root itself.

    Args:
        system: fsspec's file system.
        root: path of the folder or file in the store.
        url: its URL, for messages.
        note: receives a sentence if the store does not answer.
        patient: whether it waits for a store that does not answer.
    """

    def __init__(
        self,
        system: Any,
        root: str,
        url: str,
        *,
        note: Callable[[str], None],
        patient: bool = True,
    ) -> None:
        self.url = url
        self._system, self._root, self._note = system, root, note
        self._waits = WAITS if patient else ()

    @property
    def impatient(self) -> RemoteFiles:
        """The objects, without waiting for a store that does not answer."""
        return RemoteFiles(self._system, self._root, self.url, note=self._note, patient=False)

    def read(self, name: str) -> bytes:
        """Returns the content of an object.  Raises `RunFolderError`."""
        found: bytes = self._tried(name, "read", self._system.cat_file)
        return found

    def read_or_none(self, name: str) -> bytes | None:
        """Returns the content of an object, or None if there is none.  Raises `RunFolderError`."""

        def read(path: str) -> bytes | None:
            try:
                content: bytes = self._system.cat_file(path)
            except FileNotFoundError:
                return None
            return content

        return self._tried(name, "read", read)

    def write(self, name: str, content: bytes) -> None:
        """Writes an object, in place of one of this name.  Raises `RunFolderError`."""
        self._tried(name, "written", lambda path: self._system.pipe_file(path, content))

    def create(self, name: str, content: bytes) -> bool:
        """Writes an object unless there is one, and returns whether it was written.

        A store that can't decide between two writers takes both: the last one stays.
        """

        def create(path: str) -> bool:
            try:
                self._system.pipe_file(path, content, mode="create")
            except FileExistsError:
                return False
            except (NotImplementedError, TypeError):
                self._system.pipe_file(path, content)
            return True

        return self._tried(name, "written", create)

    def remove(self, name: str) -> None:
        """Removes an object, if it is there.  Raises `RunFolderError`."""

        def remove(path: str) -> None:
            try:
                self._system.rm_file(path)
            except FileNotFoundError:
                return

        self._tried(name, "removed", remove)

    def is_file(self, name: str) -> bool:
        """Returns whether there is an object of this name.  Raises `RunFolderError`."""

        def is_file(path: str) -> bool:
            self._system.invalidate_cache()
            try:
                found: Mapping[str, Any] = self._system.info(path)
            except FileNotFoundError:
                return False
            return bool(found["type"] == "file")

        return self._tried(name, "read", is_file)

    def names(self) -> list[str]:
        """Returns the names of all objects below the root.  Raises `RunFolderError`."""

        def names(path: str) -> list[str]:
            self._system.invalidate_cache()
            before = f"{self._system._strip_protocol(path)}/"
            return [each.removeprefix(before) for each in self._system.find(path)]

        return self._tried("", "read", names)

    def read_many(self, names: list[str]) -> dict[str, bytes]:
        """Returns the content of objects by name, several at once.  Raises `RunFolderError`."""

        def read(root: str) -> dict[str, bytes]:
            paths = {f"{root}/{name}": name for name in names}
            found = self._system.cat(list(paths), on_error="raise") if paths else {}
            return {names_of[path]: content for path, content in found.items()}

        names_of = {self._system._strip_protocol(f"{self._root}/{name}"): name for name in names}
        return self._tried("", "read", read)

    def _tried(self, name: str, done: str, action: Callable[[str], T]) -> T:
        """Returns the result of an action on a path of the store, which is tried several times."""
        path = f"{self._root}/{name}" if name else self._root
        waits: list[float | None] = [*self._waits, None]
        for number, wait in enumerate(waits):
            try:
                return action(path)
            except Exception as error:
                lasting = isinstance(error, LASTING) or type(error).__name__ in LASTING_NAMES
                if wait is None or lasting:
                    shown_name = f"{self.url}/{name}" if name else self.url
                    raise RunFolderError(
                        f"{shown_name}: can't be {done}: {_reason(error)}"
                    ) from error
                if number == 0:
                    self._note(f"{self.url}: does not answer ({_reason(error)}): trying again")
            time.sleep(wait)
        raise AssertionError("the last attempt returns or raises")


def _reason(error: BaseException) -> str:
    text = shortened(str(error)) or "no reason given"
    return f"{type(error).__name__}: {text}"
