"""Registries of models, attacks, datasets and trainers, built-in and from installed packages.

A `Registry` maps a name to an `Entry`: a one-line summary and a function that loads the object.
Objects are loaded late, so that names can be listed and checked without importing torch.

Other packages register objects through an entry-point group, such as ``gibbon.attacks``.  An entry
point refers to the object itself, whose docstring gives the summary; to an `Entry`; or to a mapping
of names to either, which registers all of them under the mapping's names::

    [project.entry-points."gibbon.models"]
    cnn = "my_package.model:cnn"
    my-zoo = "my_package.catalogue:MODELS"
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar

from gibbon.core.errors import RequestError, UnknownNameError

T = TypeVar("T")


@dataclass(frozen=True)
class Entry(Generic[T]):
    """A registered object.

    Args:
        name: its name.
        summary: one line about it.
        load: imports and returns the object.
        origin: name of the package that registered it.
        details: returns a longer text, such as a model card, for ``list --long``.
        package: import name of another package that it needs; empty if none.
    """

    name: str
    summary: str
    load: Callable[[], T]
    origin: str = "gibbon"
    details: Callable[[], str] = str
    package: str = ""

    @property
    def installed(self) -> bool:
        """Whether the package that it needs is installed; nothing is imported to find out."""
        return not self.package or importlib.util.find_spec(self.package) is not None


class Registry(Generic[T]):
    """Objects of one kind by name.

    >>> colours: Registry[int] = Registry("colour", group="example.colours")
    >>> colours.register(Entry("red", "a warm one", lambda: 0xFF0000))
    >>> colours.load("red")
    16711680
    >>> colours.load("rad")
    Traceback (most recent call last):
    gibbon.core.errors.UnknownNameError: unknown colour 'rad'; did you mean 'red'? Known: red
    """

    def __init__(self, kind: str, *, group: str) -> None:
        self.kind = kind
        self.group = group
        self._entries: dict[str, Entry[T]] = {}
        self._plugins_read = False

    def register(self, entry: Entry[T]) -> None:
        """Adds an entry.  Raises `RequestError` if its name is taken."""
        taken = self._entries.get(entry.name)
        if taken is not None:
            raise RequestError(
                f"{self.kind} {entry.name!r} is registered twice: "
                f"by {taken.origin} and by {entry.origin}"
            )
        self._entries[entry.name] = entry

    def names(self) -> list[str]:
        """Returns all names, in order of registration, plug-ins last."""
        self._read_plugins()
        return list(self._entries)

    def entries(self) -> list[Entry[T]]:
        """Returns all entries, in order of registration, plug-ins last."""
        self._read_plugins()
        return list(self._entries.values())

    def get(self, name: str, *, where: str = "") -> Entry[T]:
        """Returns the entry of that name.  Raises `UnknownNameError` with the nearest name."""
        self._read_plugins()
        if name not in self._entries:
            raise UnknownNameError(self.kind, name, known=self._entries, where=where)
        return self._entries[name]

    def load(self, name: str, *, where: str = "") -> T:
        """Returns the object of that name, importing it now.  Raises `RequestError`."""
        entry = self.get(name, where=where)
        with their_code(f"{self.kind} {name!r} of package {entry.origin} can't be imported"):
            return entry.load()

    def _read_plugins(self) -> None:
        if self._plugins_read:
            return
        self._plugins_read = True
        points = entry_points(group=self.group)
        found = [entry for point in points for entry in self._plugin_entries(point)]
        for entry in sorted(found, key=lambda each: each.name):
            self.register(entry)

    def _plugin_entries(self, point: EntryPoint) -> list[Entry[T]]:
        origin = point.dist.name if point.dist is not None else point.value
        try:
            with their_code(f"{self.kind} {point.name!r} of package {origin} can't be imported"):
                loaded: Any = point.load()
        except RequestError as error:  # raised once this name is loaded
            return [_broken(point.name, origin=origin, error=error)]
        named = loaded if isinstance(loaded, Mapping) else {point.name: loaded}
        return [_entry(str(name), thing, origin=origin) for name, thing in named.items()]


@contextmanager
def their_code(problem: str) -> Iterator[None]:
    """Turns exceptions of third-party code into a `RequestError`, for a ``with`` block.

    Its message holds the problem, the exception, and the file and line.
    """
    try:
        yield
    except RequestError:
        raise
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        raise RequestError(
            f"{problem}: {type(error).__name__}: {error} ({frame.filename}, line {frame.lineno})"
        ) from error


def lazily(reference: str) -> Callable[[], Any]:
    """Returns a function that imports ``"package.module:name"`` when it is called.

    >>> lazily("math:tau")()
    6.283185307179586
    """

    def load() -> Any:
        module, _, name = reference.partition(":")
        return getattr(importlib.import_module(module), name)

    return load


def first_line(thing: object) -> str:
    """Returns the first line of an object's docstring, without its full stop."""
    lines = (inspect.getdoc(thing) or "").splitlines()
    return lines[0].rstrip(".") if lines else "(no description)"


def _entry(name: str, thing: Any, *, origin: str) -> Entry[Any]:
    if isinstance(thing, Entry):
        return replace(thing, name=name, origin=origin)
    return Entry(name, first_line(thing), lambda: thing, origin)


def _broken(name: str, *, origin: str, error: RequestError) -> Entry[Any]:
    def fail() -> Any:
        raise error

    cause = error.__cause__
    return Entry(name, f"(can't be imported: {type(cause).__name__}: {cause})", fail, origin)
