"""Files that the code of a model reads as it is built and as it answers.

Their contents take part in its answers, as its weights do, and a sample of answers need not show a
change of them: a threshold in a file may matter for attacked inputs alone.  Python reports each
file that it opens (PEP 578, "Python runtime audit hooks").
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Final
from weakref import WeakKeyDictionary

from torch import nn

from gibbon.core.errors import WeightsError
from gibbon.core.frames import OURS, is_authors_file
from gibbon.models.weights import file_digest

CODE = (".py", ".pyc", ".pyi", ".so", ".pyd")  # it is followed itself
OF_SYSTEM = ("/proc/", "/sys/", "/dev/", "/etc/")
ACCESS: Final = os.O_RDONLY | os.O_WRONLY | os.O_RDWR


@dataclass
class ReadFiles:
    """The files that the code of somebody else reads, and those that it writes.

    What it writes is no setting of it, even if it reads it again, as a log or a cache.
    """

    read: set[str] = field(default_factory=set)
    written: set[str] = field(default_factory=set)


_NOTING = threading.local()
_INSTALLED: list[bool] = []
# A file that a function reads once and keeps is not opened for the second run of a process: its
# answers come from the contents that it had then.
_OF_MODULES: WeakKeyDictionary[nn.Module, dict[str, str]] = WeakKeyDictionary()
_OF_SOURCES: dict[str, dict[str, str]] = {}


def file_digests(model: nn.Module | str, files: ReadFiles) -> list[str]:
    """Returns digests of the contents of the files that a model has read; names don't count.

    Args:
        model: a module, or the source that the model is built from.
        files: what it has read just now.
    """
    known = _of(model)
    known |= {path: _digest(path) for path in files.read - files.written}
    for path in files.written:
        known.pop(path, None)
    return sorted(set(known.values()) - {""})


def _of(model: nn.Module | str) -> dict[str, str]:
    if isinstance(model, nn.Module):
        return _OF_MODULES.setdefault(model, {})
    return _OF_SOURCES.setdefault(model, {})


@contextmanager
def noting_files(files: ReadFiles) -> Iterator[None]:
    """Adds what the code of others opens in this thread to ``files``, a ``with`` block."""
    if not _INSTALLED:
        _INSTALLED.append(True)
        sys.addaudithook(_note)
    before, _NOTING.files = getattr(_NOTING, "files", None), files
    try:
        yield
    finally:
        _NOTING.files = before


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    if event != "open":
        return
    files = getattr(_NOTING, "files", None)
    if files is None:
        return
    path, mode, flags = arguments
    if not isinstance(path, str | bytes | os.PathLike) or not _by_others(sys._getframe(1)):
        return
    try:
        name = str(Path(os.fsdecode(path)).absolute())
    except OSError:  # an exception here would be one of ``open``; there is no working directory
        return
    if name.endswith(CODE) or name.startswith(OF_SYSTEM) or not is_authors_file(name):
        return
    for_reading = set(mode or "r").isdisjoint("wax+") and not (flags or 0) & ACCESS
    (files.read if for_reading else files.written).add(name)


def _by_others(frame: FrameType | None) -> bool:
    """Returns whether code of somebody else opens a file, directly or through a library.

    A module that reads a file as it is imported holds its contents in variables.
    """
    own = False
    while frame is not None and not frame.f_code.co_filename.startswith(str(OURS)):
        name = frame.f_code.co_filename
        if name.startswith("<frozen importlib"):
            return False
        own |= is_authors_file(name)
        frame = frame.f_back
    return own and frame is not None


def _digest(path: str) -> str:
    """Returns a digest of a file's contents; empty if it is gone, or no file."""
    try:
        return file_digest(Path(path))
    except WeightsError:
        return ""
