"""Paths in specs, resolved against the folder of the suite."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gibbon.core.errors import SpecError
from gibbon.core.reading import expanded
from gibbon.specs.naming import FILE_SUFFIXES, PYTHON_FILE


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
    path, python, factory = written.partition(PYTHON_FILE)
    if python:
        return f"{_joined(folder, path + '.py')}:{factory}"
    if not is_path(written):
        return written
    joined = _joined(folder, written)
    return joined if is_path(joined) else f"./{joined}"


def with_attack_paths(attack: Any, convert: Callable[[str], str]) -> Any:
    """Returns an attack, a name or a table, with the paths in it converted.

    They are those of its file, of the functions of ``backward``, and of the members of a list.
    Anything else is returned unchanged: it is reported when it is decoded.

    >>> with_attack_paths({"name": "a.py:A", "attacks": ["pgd", "b.py:B"]}, "x/".__add__)
    {'name': 'x/a.py:A', 'attacks': ['pgd', 'x/b.py:B']}
    """
    if isinstance(attack, str):
        return convert(attack) if PYTHON_FILE in attack else attack
    if not isinstance(attack, Mapping):
        return attack
    converted = dict(attack)
    if isinstance(attack.get("name"), str):
        converted["name"] = with_attack_paths(attack["name"], convert)
    if isinstance(attack.get("backward"), Mapping):
        converted["backward"] = {
            part: convert(each) if isinstance(each, str) else each
            for part, each in attack["backward"].items()
        }
    if isinstance(attack.get("attacks"), list | tuple):
        converted["attacks"] = [with_attack_paths(each, convert) for each in attack["attacks"]]
    return converted


def is_path(written: str) -> bool:
    """Returns whether a source or a file has the form of a path, not of a name."""
    scheme = re.match(r"[A-Za-z][A-Za-z0-9_.-]+:", written)
    if PYTHON_FILE in written:
        return True
    named = written.endswith((*FILE_SUFFIXES, ".json", ".bin", ".py", ".txt"))
    return not scheme and (named or "/" in written or written.startswith("~"))


def _joined(folder: Path, written: str) -> str:
    """Returns the shorter of a path's forms, if both resolve to one file."""
    path = folder / expanded(written, SpecError)
    short = os.path.normpath(path) if path.is_absolute() else os.path.relpath(path)
    return short if os.path.realpath(short) == os.path.realpath(path) else str(path)
