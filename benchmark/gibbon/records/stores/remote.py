"""A run in a remote store, such as S3, and its working copy on the local disk.

An object of a store is written whole or not at all, so that a file needs no temporary name there.
The order of writing is that of the local folder: outcomes as their cells are done, the record after
them.  Whatever ends the process leaves the store as a killed run leaves a local folder, and the
next run, on any machine, continues from there.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from gibbon.core.errors import MissingLibraryError, RequestError, SpecError, suggest
from gibbon.core.files import followed
from gibbon.core.plain_text import shown
from gibbon.records.stores.lease import Lease
from gibbon.records.stores.remote_files import RemoteFiles
from gibbon.records.stores.store import Store, say_nothing
from gibbon.records.stores.working_copy import WorkingCopy

EXTRA = "pip install 'gibbon-bench[remote]'"


@dataclass(frozen=True)
class RemoteStore(Store):
    """A folder or file of a remote store; the arguments are its URL and fsspec's file system."""

    url: str
    root: str
    system: Any = field(repr=False, compare=False)

    @classmethod
    def of_url(cls, url: str) -> RemoteStore:
        """Returns the store of a URL.

        Raises `MissingLibraryError` if fsspec, or its library for this kind of store, is not
        installed, and `SpecError` for an unknown kind of store.
        """
        try:
            import fsspec
            from fsspec.core import url_to_fs
        except ImportError as error:
            raise MissingLibraryError(
                f"{url}: a remote store needs fsspec, which is not installed: {EXTRA}"
            ) from error
        kind = url.partition("://")[0]
        if kind not in fsspec.available_protocols():
            known = sorted(fsspec.available_protocols())
            raise SpecError(
                f"{url}: fsspec knows no store {kind!r}{suggest(kind, known)} Examples: s3, gs, "
                "memory, file"
            )
        try:
            system, root = url_to_fs(url)
        except ImportError as error:
            raise MissingLibraryError(
                f"{url}: {str(error).rstrip('.')}; {EXTRA} installs the library of s3"
            ) from error
        except Exception as error:  # of the library of any store
            raise SpecError(f"{url}: can't be opened by fsspec: {shown(error)}") from error
        root = root.rstrip("/")
        if not posixpath.basename(root) or "::" in url:
            raise SpecError(f"{url}: expected a folder or file in the store, such as {kind}://a/b")
        return cls(url.rstrip("/"), root, system)

    def __str__(self) -> str:
        return self.url

    @contextmanager
    def reading(self) -> Iterator[Path]:
        """Yields a copy of the folder or file; next to a file also that with the ending .toml."""
        with self._at_hand() as path:
            files = self._files(say_nothing)
            if files.is_file(""):
                path.write_bytes(files.read(""))
                self._fetch_limits(path)
            else:
                WorkingCopy(path, files).fetch()
            yield path

    @contextmanager
    def writing(self, note: Callable[[str], None] = say_nothing) -> Iterator[Path]:
        """Yields a working copy, whose files are sent to the store as they are completed."""
        with self._at_hand() as path:
            files = self._files(note)
            with Lease(files, note=note).held() as lease:
                copy = WorkingCopy(path, files, check=lease.check)
                copy.fetch()
                with followed(path, copy):
                    yield path
                    copy.catch_up()

    @contextmanager
    def writing_file(self) -> Iterator[Path]:
        """Yields a path whose file is sent to the store at the end of the block.

        Next to it is the file with the ending .toml, if there is one.
        """
        with self._at_hand() as path:
            self._fetch_limits(path)
            yield path
            self._files(say_nothing).write("", path.read_bytes())

    @contextmanager
    def adding(self) -> Iterator[Path]:
        """Yields an empty folder, whose files are sent to the store at the end of the block."""
        with self._at_hand() as path:
            yield path
            WorkingCopy(path, self._files(say_nothing)).catch_up()

    def child(self, name: str) -> RemoteStore:
        """Returns a file or folder in this folder."""
        return RemoteStore(f"{self.url}/{name}", f"{self.root}/{name}", self.system)

    def _fetch_limits(self, path: Path) -> None:
        """Fetches the file of limits next to that of a baseline, if there is one."""
        url, root = (
            posixpath.splitext(each)[0] + path.with_suffix(".toml").suffix
            for each in (self.url, self.root)
        )
        if root != self.root:
            content = RemoteFiles(self.system, root, url, note=say_nothing).read_or_none("")
            if content is not None:
                path.with_suffix(".toml").write_bytes(content)

    def _files(self, note: Callable[[str], None]) -> RemoteFiles:
        return RemoteFiles(self.system, self.root, self.url, note=note)

    @contextmanager
    def _at_hand(self) -> Iterator[Path]:
        """Yields a path in a new folder; errors name the URL in its place."""
        with TemporaryDirectory(prefix="gibbon-") as folder:
            path = Path(folder) / posixpath.basename(self.root)
            try:
                yield path
            except RequestError as error:
                error.args = tuple(
                    each.replace(str(path), self.url) if isinstance(each, str) else each
                    for each in error.args
                )
                raise
