"""The copy of a remote folder on the local disk, whose changes are sent to the store."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from gibbon.core.errors import RunFolderError
from gibbon.core.plain_text import shown
from gibbon.records.run import RUN_FILE
from gibbon.records.stores.lease import LEASE_FILE
from gibbon.records.stores.remote_files import RemoteFiles

# What a run needs while it computes, and nobody else.
OF_ONE_PROCESS: Final = (LEASE_FILE, ".gibbon.lock", ".candidates")
STRANGE: Final = frozenset("\\*?[]:\0")
TOGETHER: Final = 64  # objects that are fetched at once

Stamp = tuple[int, int, int]


def check_nothing() -> None:
    """Does nothing: there is no lease to check."""


class WorkingCopy:
    """A local folder that follows a remote one: see `gibbon.core.files.Follower`.

    Args:
        folder: the local folder.
        files: the remote folder.
        check: raises `RunFolderError` if nothing may be written any more.
    """

    def __init__(
        self, folder: Path, files: RemoteFiles, *, check: Callable[[], None] = check_nothing
    ) -> None:
        self._folder, self._files, self._check = folder, files, check
        self._sent: dict[str, Stamp] = {}
        self._process = os.getpid()

    def fetch(self) -> None:
        """Fetches the remote folder; the record first, so that it is not newer than the rest.

        A file without a record comes from a run that was killed.  Raises `RunFolderError`.
        """
        names = [each for each in self._files.names() if _is_kept(each)]
        for each in names:
            self._check_name(each)
        names.sort(key=lambda each: each != RUN_FILE)
        for start in range(0, len(names), TOGETHER):
            for name, content in self._files.read_many(names[start : start + TOGETHER]).items():
                path = self._folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
                self._sent[name] = _stamp(path)

    def stored(self, path: Path) -> None:
        """Sends a file."""
        name = path.relative_to(self._folder).as_posix()
        # A process of one cell ends with `catch_up` in this one; connections don't survive a fork.
        if os.getpid() != self._process or not _is_kept(name):
            return
        self._check()
        self._files.write(name, path.read_bytes())
        self._sent[name] = _stamp(path)

    def removed(self, path: Path) -> None:
        """Removes a file, or all files of a folder, from the store."""
        if os.getpid() != self._process:
            return
        gone = path.relative_to(self._folder).as_posix()
        if gone in self._sent:
            self._remove(gone)
        elif not path.suffix:  # a folder
            for name in [each for each in self._sent if each.startswith(f"{gone}/")]:
                self._remove(name)

    def catch_up(self) -> None:
        """Sends what has changed since it was sent, the record last, and removes what is gone."""
        if os.getpid() != self._process:
            return
        there = dict(self._local())
        for name, stamp in there.items():
            if self._sent.get(name) != stamp:
                self.stored(self._folder / name)
        for name in self._sent.keys() - there.keys():
            self._remove(name)

    def _remove(self, name: str) -> None:
        self._check()
        self._files.remove(name)
        del self._sent[name]

    def _local(self) -> Iterator[tuple[str, Stamp]]:
        found = []
        for folder, _, names in os.walk(self._folder):
            for each in names:
                path = Path(folder) / each
                name = path.relative_to(self._folder).as_posix()
                if _is_kept(name) and not path.is_symlink():
                    found.append((name, _stamp(path)))
        yield from sorted(found, key=lambda each: (each[0] == RUN_FILE, each[0]))

    def _check_name(self, name: str) -> None:
        """Raises `RunFolderError` for a name, which anybody may have chosen, of no local path."""
        if STRANGE & {*name} or {"", ".", ".."} & {*name.split("/")}:
            raise RunFolderError(
                f"{self._files.url}: holds an object of the name {shown(name)}, which is no file "
                "of a run: remove it"
            )


def _is_kept(name: str) -> bool:
    first, _, _ = name.partition("/")
    last = name.rpartition("/")[2]
    return first not in OF_ONE_PROCESS and not (last.startswith(".") and last.endswith(".tmp"))


def _stamp(path: Path) -> Stamp:
    status = path.stat()
    return status.st_size, status.st_mtime_ns, status.st_ino
