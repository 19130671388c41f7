"""Python code that a user names: ``path/to/net.py:build`` or ``package.module:Net``."""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from benchmark.errors import RequestError, suggest
from benchmark.registry import their_code

_MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


def is_reference(text: str) -> bool:
    """Says whether a text has the form of a reference to code.

    >>> [is_reference(each) for each in ("nets/small.py:Net", "package.module:Net", "net.onnx")]
    [True, True, False]
    """
    return ".py:" in text or text.endswith(".py") or _MODULE.fullmatch(text) is not None


def load_reference(text: str, *, what: str) -> Any:
    """Returns what a reference names, importing its file or module now.

    ``what`` is what error messages call it, such as ``"model"``.  Raises `RequestError` where the
    file or module can't be imported, or has nothing of that name.
    """
    place, _, name = text.rpartition(":") if not text.endswith(".py") else (text, "", "")
    if not name:
        raise RequestError(f"{what} {text!r}: say which factory of the file: {text}:NAME")
    module = _from_file(Path(place), what=what) if place.endswith(".py") else _import(place, what)
    thing: Any = module
    for part in name.split("."):
        if not hasattr(thing, part):
            public = [each for each in vars(thing) if not each.startswith("_")]
            raise RequestError(f"{what} {text!r}: {place} has no {part!r}{suggest(part, public)}")
        thing = getattr(thing, part)
    return thing


def _from_file(path: Path, *, what: str) -> ModuleType:
    if not path.is_file():
        raise RequestError(f"{what}: no file {str(path)!r}")
    name = f"gibbon_user_{path.stem}_{abs(hash(path.resolve())):x}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise RequestError(f"{what}: {str(path)!r} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look their own module up
    try:
        with _importable(path.parent), their_code(f"{what}: {str(path)!r} can't be imported"):
            spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _import(name: str, what: str) -> ModuleType:
    with _importable(Path.cwd()), their_code(f"{what}: module {name!r} can't be imported"):
        return importlib.import_module(name)


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """While inside, what stands beside a user's file can be imported by it."""
    place = str(folder.resolve())
    sys.path.insert(0, place)
    try:
        yield
    finally:
        sys.path.remove(place)
