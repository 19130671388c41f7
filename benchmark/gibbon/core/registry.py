"""Names for models, attacks, datasets and trainers, ours and those of installed packages.

A `Registry` maps a name to an `Entry`: one line about the thing and a function that loads it.
Loading is late, so that names can be listed and checked without importing torch.  Other packages
add their own through an entry-point group, such as ``gibbon.attacks``; what the entry point names
is either an `Entry` or the thing itself, whose docstring then gives the line.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar

from gibbon.core.errors import RequestError, UnknownNameError

T = TypeVar("T")


@dataclass(frozen=True)
class Entry(Generic[T]):
    """One named thing: its name, a line about it, where it came from, and how to load it.

    ``details`` is a longer text, such as a model card, for ``list --long``.  ``package`` is what
    must be installed besides, by the name that it is imported by.
    """

    name: str
    summary: str
    load: Callable[[], T]
    origin: str = "gibbon"
    details: Callable[[], str] = str
    package: str = ""

    @property
    def installed(self) -> bool:
        """Whether what it needs besides is there; nothing is imported to find out."""
        return not self.package or importlib.util.find_spec(self.package) is not None


class Registry(Generic[T]):
    """Things of one kind by name.

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
        """Adds an entry.  Raises `RequestError` where the name is taken."""
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
        """Returns the thing of that name, importing it now.  Raises `RequestError`."""
        entry = self.get(name, where=where)
        with their_code(f"{self.kind} {name!r} of package {entry.origin} can't be imported"):
            return entry.load()

    def _read_plugins(self) -> None:
        if self._plugins_read:
            return
        self._plugins_read = True
        for point in sorted(entry_points(group=self.group), key=lambda p: p.name):
            self.register(self._plugin_entry(point))

    def _plugin_entry(self, point: EntryPoint) -> Entry[T]:
        origin = point.dist.name if point.dist is not None else point.value
        try:
            with their_code(f"{self.kind} {point.name!r} of package {origin} can't be imported"):
                loaded: Any = point.load()
        except RequestError as error:  # told when it is asked for
            return _broken(point.name, origin=origin, error=error)
        if isinstance(loaded, Entry):
            return replace(loaded, name=point.name, origin=origin)
        return Entry(point.name, first_line(loaded), lambda: loaded, origin)


@contextmanager
def their_code(problem: str) -> Iterator[None]:
    """While inside, somebody else's code is loaded or tried: what it raises is a wrong request.

    Raises `RequestError`: the problem, what was raised, and where.
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
    """Returns the first line of a thing's docstring, without its full stop."""
    lines = (inspect.getdoc(thing) or "").splitlines()
    return lines[0].rstrip(".") if lines else "(no description)"


def _broken(name: str, *, origin: str, error: RequestError) -> Entry[Any]:
    def fail() -> Any:
        raise error

    cause = error.__cause__
    return Entry(name, f"(can't be imported: {type(cause).__name__}: {cause})", fail, origin)
