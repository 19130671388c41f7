"""Paths in specs, resolved against the folder of the suite."""

from __future__ import annotations

import os
import re
from pathlib import Path

from gibbon.core.errors import SpecError
from gibbon.core.reading import expanded
from gibbon.specs.naming import FILE_SUFFIXES


def resolve(written: str, folder: Path) -> str:
    """Returns a path that is relative to ``folder`` as one relative to the working folder.

    A text is a path if it has a file's suffix, or a slash and no scheme; a factory's path may be
    followed by its name.  Any other text is returned unchanged.

    >>> resolve("w.safetensors", Path("suites")), resolve("torchvision:resnet50", Path("suites"))
    ('suites/w.safetensors', 'torchvision:resnet50')
    >>> resolve("../nets/small.py:Net", Path("suites")), resolve("random", Path("suites"))
    ('nets/small.py:Net', 'random')
    >>> resolve("../photos", Path("suites")), resolve("./mnist", Path())
    ('./photos', './mnist')
    """
    path, python, factory = written.partition(".py:")
    if python:
        return f"{_joined(folder, path + '.py')}:{factory}"
    if not is_path(written):
        return written
    joined = _joined(folder, written)
    return joined if is_path(joined) else f"./{joined}"


def is_path(written: str) -> bool:
    """Returns whether a source or a file has the form of a path, not of a name."""
    scheme = re.match(r"[A-Za-z][A-Za-z0-9_.-]+:", written)
    if ".py:" in written:
        return True
    named = written.endswith((*FILE_SUFFIXES, ".json", ".bin", ".py", ".txt"))
    return not scheme and (named or "/" in written or written.startswith("~"))


def _joined(folder: Path, written: str) -> str:
    """Returns the shorter of a path's forms, if both resolve to one file."""
    path = folder / expanded(written, SpecError)
    short = os.path.normpath(path) if path.is_absolute() else os.path.relpath(path)
    return short if os.path.realpath(short) == os.path.realpath(path) else str(path)
