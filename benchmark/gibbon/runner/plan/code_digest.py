"""Digests of other people's code.

`code_digest` covers the code of the author's own modules: the modules of the given classes, and
the modules that these import, directly or through others, except libraries.  A library is what is
installed beside the author's package, the standard library, and this package.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.machinery
import importlib.util
import inspect
import json
import sys
import sysconfig
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import numpy
import pydantic
import torch

from gibbon.runner.plan.bytecode import codes_in

PACKAGE = __name__.partition(".")[0]
OURS = (PACKAGE, "torch")  # which go by their versions, wherever they were built
MAIN = "__main__"
INSTALLED = {"site-packages", "dist-packages"}
BUILDERS = {"pip", "uv"}
# What this package is made with goes by its version, too, wherever it was installed.
NEEDED = tuple(Path(str(each.__file__)).parent for each in (pydantic, torch, numpy))
STANDARD = tuple(Path(sysconfig.get_path(each)) for each in ("stdlib", "platstdlib"))


def code_digest(
    kinds: Iterable[type],
    *,
    values: Iterable[type] = (),
    functions: Iterable[FunctionType] = (),
) -> str | None:
    """Returns a digest of the code behind classes, or None if that code can't be read.

    It covers the modules of the classes and of their bases, and the author's own modules that these
    import, also inside functions.  Docstrings, comments, layout, the order and form of imports,
    unused imports of libraries, and the names of modules are left out.  Of ``values``, classes that
    libraries may have defined, those of the author count; all ``functions`` are the author's.

    Code can't be read if it was typed into a console or a notebook, was compiled from text, or if
    its file has changed since it was imported.
    """
    walk = _ImportWalk()
    try:
        for kind in kinds:
            walk.packages.add(_top(kind.__module__))
            walk.start(kind, always=True)
        for kind in set(values):
            walk.start(kind)
        for function in functions:
            walk.start_function(function)
        return _hash("".join(sorted(set(walk.digests()))).encode())
    except (OSError, SyntaxError, ValueError, _NoSourceError):
        return None


def text_in_file(function: FunctionType) -> str | None:
    """Returns a text for a function whose code is that of its file; None for another function.

    The text is a digest of the file, as `code_digest` reads it, and the place of the function among
    all functions of the file.  So it is the same after a change of comments and layout.  Another
    function was typed into a console, was compiled from text, or its file has changed since.
    """
    path = Path(function.__code__.co_filename)
    try:
        content = path.read_bytes()
        codes = _compiled(content)
        place = codes.index(function.__code__)
        return f"{_parsed(importlib.util.decode_source(content), '').code}:{place}"
    except (OSError, SyntaxError, ValueError):
        return None


@lru_cache(maxsize=1024)
def _compiled(content: bytes) -> tuple[CodeType, ...]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return tuple(codes_in(compile(content, "", "exec", dont_inherit=True)))


def is_library(file: str) -> bool:
    """Returns whether a file of code is of an installed package, or of the standard library.

    A package that was installed from a folder or a repository counts as its author's, who may
    change it under one version number.
    """
    path = Path(file)
    for place, part in enumerate(path.parts):
        if part in INSTALLED:
            folder, *inside = Path(*path.parts[: place + 1]), *path.parts[place + 1 : place + 2]
            return not inside or Path(inside[0]).stem not in _built_here(folder)
    return any(each in path.parents for each in (*STANDARD, *NEEDED))


@lru_cache(maxsize=64)
def _built_here(folder: Path) -> frozenset[str]:
    """Returns the names of the packages of a folder that were installed from a place of their own.

    Such an installation writes down where from (PEP 610).  Other package managers than pip and uv
    write it too, for packages that they have built once and for all.
    """
    found: set[str] = set()
    for origin in folder.glob("*.dist-info/direct_url.json"):
        try:
            if (origin.parent / "INSTALLER").read_text().strip() not in BUILDERS:
                continue
            place = json.loads(origin.read_text())
            local = urlsplit(place["url"])
            if "vcs_info" in place or Path(url2pathname(local.path)).exists():
                lines = (origin.parent / "RECORD").read_text().splitlines()
                found |= {Path(each.split(",")[0]).parts[0].partition(".")[0] for each in lines}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError):
            continue  # metadata in pieces
    return frozenset(found - {""})


class _NoSourceError(Exception):
    """The code of a class or a module can't be read."""


@dataclass(frozen=True)
class _Import:
    """One name that an import statement binds.

    ``module`` is the full name of the module, ``name`` what is taken from it, empty for the module
    itself, and ``local`` what it is called from there on.
    """

    module: str
    name: str
    local: str

    @property
    def path(self) -> str:
        return ".".join(filter(None, (self.module, self.name)))


@dataclass(frozen=True)
class _Module:
    """The parts of a module that count: a digest of its code without imports, and its imports."""

    code: str
    imports: tuple[_Import, ...] = ()
    names: frozenset[str] = frozenset()


@dataclass
class _ImportWalk:
    """The author's own modules that are reached from some classes."""

    modules: dict[str, _Module] = field(default_factory=dict)
    packages: set[str] = field(default_factory=set)
    folders: list[str] = field(default_factory=list)

    def start(self, kind: type, *, always: bool = False) -> None:
        """Adds the author's own modules that a class and its bases are defined in.

        ``always`` adds that of the class itself, whoever wrote it.  Raises `_NoSourceError` if one
        of them has no source.
        """
        for each in kind.__mro__:
            top = _top(each.__module__)
            needed = always and each is kind
            if not needed and (top == PACKAGE or top in sys.stdlib_module_names) and top != MAIN:
                continue
            functions = list(_functions(each))
            home = _home(each, functions)
            file = home.get("__file__")
            known = file or getattr(sys.modules.get(top), "__file__", None)
            theirs = known is not None and not self._is_own(each.__module__, known)
            if theirs and not needed and top != MAIN:  # which may be a console's
                continue
            written = {function.__code__.co_filename for function in functions} - {file}
            if file is None or not all(Path(each).exists() for each in written):  # "<stdin>"
                raise _NoSourceError
            self._add_home(each.__module__, home, file)

    def start_function(self, function: FunctionType) -> None:
        """Adds the module that a function is defined in, and raises as `start` does."""
        home = function.__globals__
        name, file = home.get("__name__"), home.get("__file__")
        written = function.__code__.co_filename
        if not isinstance(name, str) or file is None:
            raise _NoSourceError
        if written != file and not Path(written).exists():
            raise _NoSourceError
        self._add_home(name, home, file)

    def _add_home(self, name: str, home: Mapping[str, Any], file: str) -> None:
        spec, package = home.get("__spec__"), home.get("__package__") or ""
        if not package:
            self.folders.append(str(Path(file).resolve().parent))
        if not isinstance(spec, ModuleSpec):  # a script
            spec = ModuleSpec(name, None, origin=file)
        self._add(name, spec, package=package)

    def digests(self) -> Iterator[str]:
        """Yields a digest of each module, after all that they import is reached."""
        waiting = list(self.modules)
        for name in waiting:
            for each in self.modules[name].imports:
                waiting += self._follow(each)
        for module in self.modules.values():
            bound = sorted({text for each in module.imports for text in self._bound(module, each)})
            yield _hash(json.dumps([module.code, bound]).encode())

    def _follow(self, imported: _Import) -> Iterator[str]:
        """Adds the modules that an import runs, and yields the names of those that are new."""
        parts = imported.path.split(".")
        for length in range(1, len(parts) + 1):
            name = ".".join(parts[:length])
            if name in self.modules:
                continue
            spec = self._find(name)
            if spec is None:
                return
            if spec.origin is not None:
                if not self._is_own(name, spec.origin):
                    return
                is_package = spec.submodule_search_locations is not None
                self._add(name, spec, package=name if is_package else name.rpartition(".")[0])
                yield name

    def _bound(self, module: _Module, imported: _Import) -> Iterator[str]:
        """Yields what a local name stands for; a module of the author goes by its code."""
        for target, name in ((imported.path, ""), (imported.module, imported.name)):
            if target in self.modules:
                yield f"{imported.local} = {self.modules[target].code}:{name}"
                return
        if imported.local in module.names or imported.local == "*":
            yield f"{imported.local} = {imported.path}"

    def _add(self, name: str, spec: ModuleSpec, *, package: str) -> None:
        if name not in self.modules:
            self.modules[name] = _read(name, spec, package=package)

    def _find(self, name: str) -> ModuleSpec | None:
        """Returns the spec of a module, which is not imported for it."""
        loaded = getattr(sys.modules.get(name), "__spec__", None)
        if isinstance(loaded, ModuleSpec):
            return loaded
        parent = name.rpartition(".")[0]
        if parent:
            places = getattr(self._find(parent), "submodule_search_locations", None)
            with suppress(Exception):  # a package without a file whose parent is not imported
                return PathFinder.find_spec(name, places) if places is not None else None
            return None
        found = PathFinder.find_spec(name, [*self.folders, *sys.path])
        return found if found is not None or name in sys.modules else importlib.util.find_spec(name)

    def _is_own(self, name: str, file: str | None) -> bool:
        top = _top(name)
        if top in OURS or file is None:
            return False
        if is_library(file):
            return not INSTALLED.isdisjoint(Path(file).parts) and top in self.packages
        return Path(file).is_absolute()  # others are words such as "built-in"


# What a loaded module was imported from: its file may have changed since.
_IMPORTED: dict[str, tuple[object, bytes]] = {}


def _read(name: str, spec: ModuleSpec, *, package: str) -> _Module:
    origin = spec.origin or ""
    loaded = sys.modules.get(name)
    token = getattr(loaded, "__spec__", None) or loaded  # `importlib.reload` makes another spec
    remembered, content = _IMPORTED.get(name, (None, b""))
    if token is None or remembered is not token:
        content = _content(name, spec)
        if token is not None:
            if token is spec and not _is_as_imported(spec, content):
                raise _NoSourceError
            _IMPORTED[name] = (token, content)
    if origin.endswith(tuple(importlib.machinery.EXTENSION_SUFFIXES)):
        return _Module(_hash(content))
    return _parsed(importlib.util.decode_source(content), package)


def _content(name: str, spec: ModuleSpec) -> bytes:
    path = Path(spec.origin or "")
    if path.is_file():
        return path.read_bytes()
    get = getattr(spec.loader, "get_source", None)  # inside an archive
    source = get(name) if get is not None else None
    if source is None:
        raise _NoSourceError
    return str(source).encode()


def _is_as_imported(spec: ModuleSpec, content: bytes) -> bool:
    """Returns whether a file is the one that was imported, as far as its bytecode file shows."""
    if type(spec.loader) is not SourceFileLoader or sys.dont_write_bytecode:
        return True
    try:
        head = Path(spec.cached or "").read_bytes()[4:16]
        status = Path(spec.origin or "").stat()
    except OSError:
        return True
    if any(head[:4]):
        return head[4:] == importlib.util.source_hash(content)
    numbers = (int(status.st_mtime), status.st_size)
    return head[4:] == b"".join((each & 0xFFFFFFFF).to_bytes(4, "little") for each in numbers)


@lru_cache(maxsize=1024)  # a suite reads the same modules for every model
def _parsed(source: str, package: str) -> _Module:
    bare = _CodeOnly(package)
    tree = bare.visit(ast.parse(source))
    names = {each.id for each in ast.walk(tree) if isinstance(each, ast.Name)}
    return _Module(_hash(ast.unparse(tree).encode()), tuple(bare.imports), frozenset(names))


class _CodeOnly(ast.NodeTransformer):
    """Removes docstrings, imports, and declarations of an attack that change no candidate."""

    def __init__(self, package: str) -> None:
        self.package = package
        self.imports: list[_Import] = []

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        value = node.value
        text = isinstance(value, ast.Constant) and isinstance(value.value, str)
        return None if text else self.generic_visit(node)

    def visit_Import(self, node: ast.Import) -> None:
        for each in node.names:
            self.imports.append(_Import(each.name, "", each.asname or _top(each.name)))

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        above = self.package.split(".")
        above = above[: len(above) + 1 - node.level] if node.level else []
        module = ".".join(filter(None, [*above, node.module]))
        for each in node.names:
            name = "" if each.name == "*" else each.name
            self.imports.append(_Import(module, name, each.asname or each.name))

    def visit_If(self, node: ast.If) -> ast.AST | None:
        self.generic_visit(node)
        return node if node.body or node.orelse else None  # nothing but imports

    def visit_Assign(self, node: ast.Assign | ast.AnnAssign) -> ast.AST | None:
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        names = [each.id for each in targets if isinstance(each, ast.Name)]
        return None if "needs_gradient" in names else self.generic_visit(node)

    visit_AnnAssign = visit_Assign  # noqa: N815  # as ast calls it


def _functions(kind: type) -> Iterator[FunctionType]:
    """Yields the functions of a class, less those that are generated for dataclasses."""
    for name, value in vars(kind).items():
        function = getattr(value, "__func__", None) or getattr(value, "fget", None) or value
        function = inspect.unwrap(function) if callable(function) else function
        if isinstance(function, FunctionType) and not name.startswith("__"):
            yield function


def _home(kind: type, functions: list[FunctionType]) -> Mapping[str, Any]:
    """Returns the namespace of the module that a class is defined in, empty if it is not there."""
    for function in functions:  # the module may no longer be listed under its name
        if function.__module__ == kind.__module__:
            return function.__globals__
    return vars(sys.modules[kind.__module__]) if kind.__module__ in sys.modules else {}


def _top(module: str) -> str:
    return module.partition(".")[0]


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
