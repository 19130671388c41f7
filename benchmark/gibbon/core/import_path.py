"""Imports Python objects by reference: ``path/to/net.py:build`` or ``package.module:Net``."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from gibbon.core.errors import RequestError, suggest
from gibbon.core.reading import expanded
from gibbon.core.registry import restoring_imports, their_code

_MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
_OURS = "gibbon_user_"
_KEY = 16  # digits of the digest in the name of such a module


@dataclass(frozen=True)
class _Sibling:
    """A module in the folder of a user's file, with its file's time and size at its import."""

    module: ModuleType
    stamp: tuple[int, int] | None


# By folder: two versions of a project in two folders must not share a `layers.py`.
_SIBLINGS: dict[str, dict[str, _Sibling]] = {}


def is_reference(text: str) -> bool:
    """Returns whether a text has the form of a reference.

    >>> [is_reference(each) for each in ("nets/small.py:Net", "package.module:Net", "net.onnx")]
    [True, True, False]
    """
    return ".py:" in text or text.endswith(".py") or _MODULE.fullmatch(text) is not None


def module_name(module: str) -> str:
    """Returns the name of a module; that of an imported file without where it was and its content.

    >>> module_name("gibbon_user_mine_0123456789abcdef"), module_name("my_package.attacks")
    ('mine', 'my_package.attacks')
    """
    found = re.fullmatch(rf"{_OURS}(.+)_[0-9a-f]{{{_KEY}}}", module)
    return found[1] if found else module


def check_reference(text: str, *, what: str) -> None:
    """Checks that the file or top-level package of a reference exists; imports nothing.

    Raises `RequestError`.
    """
    place, name = _parts(text, what=what)
    if place.endswith(".py"):
        _check_file(Path(place), what=what)
        if not all(part.isidentifier() for part in name.split(".")):
            raise RequestError(f"{what} {text!r}: {name!r} is not a name of Python")
        return
    with _importable(Path.cwd()):
        top = place.partition(".")[0]
        if top not in sys.modules and importlib.util.find_spec(top) is None:
            raise RequestError(
                f"{what} {text!r}: there is no module {top!r}, neither installed nor in this folder"
            )


def load_reference(text: str, *, what: str) -> Any:
    """Returns the object that a reference names, importing its file or module now.

    ``what`` names its kind in error messages, such as ``"model"``.  A file that has changed since
    it was imported is imported again.  Raises `RequestError` if the file or module can't be
    imported, or has no attribute of that name.
    """
    place, name = _parts(text, what=what)
    with importing(text):
        is_file = place.endswith(".py")
        module = _from_file(Path(place), what=what) if is_file else _import(place, what)
    thing: Any = module
    for part in name.split("."):
        try:
            thing = getattr(thing, part)
        except AttributeError:
            near = suggest(part, (each for each in dir(thing) if not each.startswith("_")))
            raise RequestError(f"{what} {text!r}: {place} has no {part!r}{near}") from None
    return thing


@contextmanager
def importing(text: str) -> Iterator[None]:
    """Lets referenced code import modules from its folder, for a ``with`` block.

    They are imported from the folder of a file, or from the working folder for a module.  A factory
    that imports a module when it is called must be called inside the block.
    """
    place = text if text.endswith(".py") else text.rpartition(":")[0]
    with _importable(Path(place).parent if place.endswith(".py") else Path.cwd()):
        yield


@contextmanager
def running(problem: str) -> Iterator[None]:
    """Turns exceptions and exits of a user's code into a `RequestError`, for a ``with`` block.

    Its message holds the problem, the exception, and the file and line.
    """
    with their_code(problem):
        yield


def _parts(text: str, *, what: str) -> tuple[str, str]:
    place, _, name = text.rpartition(":") if not text.endswith(".py") else (text, "", "")
    if not name:
        raise RequestError(f"{what} {text!r}: name the factory in the file: {place}:NAME")
    if place.startswith("~"):
        place = str(expanded(place, RequestError))
    return place, name


def _check_file(path: Path, *, what: str) -> None:
    expanded(path, RequestError)
    if path.is_dir():
        raise RequestError(f"{what}: {str(path)!r} is a folder, expected a Python file")
    if not path.is_file():
        others = sorted(each.name for each in path.parent.glob("*.py"))
        raise RequestError(f"{what}: no file {str(path)!r}{suggest(path.name, others)}")


def _from_file(path: Path, *, what: str) -> ModuleType:
    _check_file(path, what=what)
    with their_code(f"{what}: {str(path)!r} can't be read"):
        content = path.read_bytes()
    key = hashlib.sha256(str(path.resolve()).encode() + b"\0" + content).hexdigest()[:_KEY]
    name = f"{_OURS}{path.stem}_{key}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise RequestError(f"{what}: {str(path)!r} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look their own module up
    try:
        with running(f"{what}: {str(path)!r} can't be imported"), restoring_imports():
            # Compiled from the bytes read: cached bytecode is only matched by time and size.
            code = compile(content, str(path), "exec", dont_inherit=True)
            exec(code, module.__dict__)  # noqa: S102
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, RequestError) and "relative import" in str(error.__cause__):
            raise RequestError(
                f"{error}; a file of a package is named as its module: package.{path.stem}:NAME, "
                "where package is installed or in the working folder"
            ) from error
        raise
    return module


def _import(name: str, what: str) -> ModuleType:
    with running(f"{what}: module {name!r} can't be imported"), restoring_imports():
        importlib.invalidate_caches()
        return importlib.import_module(name)


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Makes the modules of a folder importable, only for a ``with`` block."""
    place = str(folder.resolve())
    if place in sys.path or ("" in sys.path and folder.resolve() == Path.cwd()):
        yield
        return
    before = set(sys.modules)
    siblings = _SIBLINGS.setdefault(place, {})
    if any(_stamp(each.module) != each.stamp for each in siblings.values()):
        _forget(place)
    sys.modules.update({name: each.module for name, each in siblings.items() if name not in before})
    sys.path.insert(0, place)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(place)
        for name in [each for each in sys.modules if each not in before]:
            module = sys.modules[name]
            if _stands_in(module, place) and not _found_by_all(name, siblings):
                siblings[name] = _Sibling(sys.modules.pop(name), _stamp(module))


def _forget(place: str) -> None:
    """Forgets all modules that were imported from a folder."""
    _SIBLINGS[place].clear()
    for name, module in list(sys.modules.items()):
        if name.startswith(_OURS) and Path(place) == Path(str(module.__file__)).resolve().parent:
            del sys.modules[name]


def _stamp(module: ModuleType) -> tuple[int, int] | None:
    try:
        status = Path(_origin(module)).stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


def _origin(module: ModuleType) -> str:
    """Returns the file of a module, or the folder of a package that has none."""
    return str(getattr(module, "__file__", None) or next(iter(getattr(module, "__path__", ())), ""))


def _stands_in(module: ModuleType, place: str) -> bool:
    ours = module.__name__.startswith(_OURS)
    return not ours and Path(place) in Path(_origin(module)).parents


def _found_by_all(name: str, siblings: Mapping[str, _Sibling]) -> bool:
    """Returns whether a module is found without its folder too, as an installed one is."""
    top = name.partition(".")[0]
    if top in siblings:
        return False
    finders = [find for each in sys.meta_path if (find := getattr(each, "find_spec", None))]
    found = next((spec for find in finders if (spec := find(top, None)) is not None), None)
    return found is not None and found.origin == getattr(sys.modules.get(top), "__file__", None)
