"""Atomic file writes, where a file is complete or not there, and errors of reading files."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import BinaryIO, Protocol

from gibbon.core.errors import RequestError, RunFolderError

StrPath = str | os.PathLike[str]

# A link is not followed, and no file is opened that somebody else has made; of the flags some
# systems lack the last two.
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL
_NEW |= getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)

_LASTING = ContextVar("lasting", default=True)


class Follower(Protocol):
    """Repeats elsewhere what happens to the files of a folder, such as in a remote store."""

    def stored(self, path: Path) -> None:
        """Is called for each file that has been written completely."""

    def removed(self, path: Path) -> None:
        """Is called for each file or folder that has been removed."""

    def catch_up(self) -> None:
        """Repeats what other processes, and writers that do not report, have done."""


_FOLLOWERS: dict[Path, Follower] = {}  # by folder; empty for runs on a local disk


@contextmanager
def followed(folder: Path, follower: Follower) -> Iterator[None]:
    """Lets a follower repeat what happens to the files of a folder within a ``with`` block."""
    _FOLLOWERS[folder] = follower
    try:
        yield
    finally:
        del _FOLLOWERS[folder]


def catch_up() -> None:
    """Lets all followers repeat what another process has done to their folders."""
    for follower in tuple(_FOLLOWERS.values()):
        follower.catch_up()


def _followers_of(path: Path) -> Iterator[Follower]:
    for folder, follower in tuple(_FOLLOWERS.items()):
        if path.is_relative_to(folder):
            yield follower


def remove_file(path: Path) -> None:
    """Removes a file, if it is there.  Raises `OSError`."""
    path.unlink(missing_ok=True)
    for follower in _followers_of(path):
        follower.removed(path)


def remove_folder(path: Path) -> None:
    """Removes a folder and everything in it, as far as it can be removed."""
    shutil.rmtree(path, ignore_errors=True)
    for follower in _followers_of(path):
        follower.removed(path)


@contextmanager
def files_of_this_process() -> Iterator[None]:
    """Does not wait for the disk within a ``with`` block, whose files end with the process."""
    before = _LASTING.set(False)
    try:
        yield
    finally:
        _LASTING.reset(before)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Writes a file under a temporary name and renames it: readers see the old or the new file.

    Raises `RunFolderError` if it can't be written.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    data = content.encode() if isinstance(content, str) else content
    try:
        with open_new(temporary) as file:
            file.write(data)
            file.flush()
            if _LASTING.get():
                os.fsync(file.fileno())  # before it is renamed, in case the power fails
        temporary.replace(path)
    except BaseException as error:  # also the end of this process by a signal
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise unwritable(path, error) from error
        raise
    for follower in _followers_of(path):
        follower.stored(path)


def unwritable(path: Path, error: Exception) -> RunFolderError:
    """Returns the error of a path that can't be written, with the reason."""
    reason = getattr(error, "strerror", None) or error
    return RunFolderError(f"{path}: can't be written: {reason}")


def open_new(path: Path) -> BinaryIO:
    """Opens a new file for writing, in place of a file or link of this name.

    In a folder that others may write to, a link of this name may lead anywhere: it is removed, and
    not followed.  Raises `OSError`.
    """
    with suppress(FileNotFoundError):
        path.unlink()
    return os.fdopen(os.open(path, _NEW, 0o666), "wb")


def own_folder(path: Path) -> None:
    """Makes a folder if there is none; a link to a folder is refused.  Raises `OSError`."""
    with suppress(FileExistsError):
        path.mkdir()
    if path.is_symlink():
        raise FileExistsError(errno.EEXIST, "a link has the name of its folder", str(path))
    if not path.is_dir():
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))


def read_plain_file(path: Path) -> bytes:
    """Returns the content of a file that is no pipe and no device.  Raises `OSError`."""
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "not a file", str(path))
    return path.read_bytes()


@contextmanager
def reading(path: Path, problem: type[RequestError]) -> Iterator[None]:
    """Turns errors of reading a file into a ``problem`` that names it, for a ``with`` block."""
    try:
        yield
    except OSError as error:
        raise problem(f"{path}: can't be read: {error.strerror or error}") from error
