"""Detects and undoes changes to what the code of a model or an attack reads from elsewhere.

A function may read variables of its module or of another module of its author, attributes of
classes, and variables of the function around it.  They take part in its answers, and every other
code in the process can change them.  `ReachedValues` follows the code from the classes of a model
or of an attack, holds these values, and puts them back.

Code of installed packages is not followed.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any, Protocol

import numpy as np
from torch import Tensor, nn

from gibbon.core.frames import is_authors_file
from gibbon.models.held_values import MANY_ENTRIES, HeldValue, Place, held

MOST = 5000  # functions, classes, modules and objects that are followed
OF_FUNCTIONS = ("__code__", "__defaults__", "__kwdefaults__")
GENERATED = frozenset(
    [
        *("__dict__", "__weakref__", "__doc__", "__module__", "__qualname__", "__annotations__"),
        *("__firstlineno__", "__static_attributes__", "__abstractmethods__", "_abc_impl"),
        *("__name__", "__file__", "__spec__", "__loader__", "__package__", "__builtins__"),
    ]
)


class _Space(Protocol):
    """The place of a value: read and written under a key, as in a dictionary."""

    def __getitem__(self, key: Any, /) -> Any: ...

    def __setitem__(self, key: Any, value: Any, /) -> None: ...


@dataclass(frozen=True)
class _AttributeSpace:
    """The attributes of a class, of a function, or of the cell of a closure."""

    owner: Any

    def __getitem__(self, key: str) -> Any:
        if isinstance(self.owner, type):
            return vars(self.owner)[key]
        try:
            return getattr(self.owner, key)
        except (AttributeError, ValueError) as error:  # an empty cell
            raise KeyError(key) from error

    def __setitem__(self, key: str, value: Any) -> None:
        setattr(self.owner, key, value)


class ReachedValues:
    """The values that the functions of classes and objects read from elsewhere.

    Args:
        starts: modules of torch, or other objects, whose classes' functions are followed.

    Attributes:
        places: where the values are.
        core: those of the objects themselves and of their classes.
        own: all but variables of modules that hold none of the functions.
        parts: the identities of the parts of modules.
    """

    def __init__(self, starts: Iterable[object]) -> None:
        walk = _ReachedCode()
        for each in starts:
            walk.start(each)
        walk.follow()
        self._held = walk.held
        self._labels = walk.labels
        self.places = frozenset(each.place for each in self._held)
        self.parts = frozenset(walk.parts)
        self.core = frozenset(each for each in self.places if each[0] in walk.starts)
        strange = walk.modules - walk.homes
        self.own = frozenset(each for each in self.places if each[0] not in strange)

    def changed(self) -> frozenset[Place]:
        """Returns the places of the values that have changed."""
        return frozenset(each.place for each in self._held if each.changed())

    def restore(self, *, but: frozenset[Place] = frozenset()) -> frozenset[Place]:
        """Restores all values but some, and returns the places of those that had changed."""
        return frozenset(
            [each.place for each in self._held if each.place not in but and each.restore()]
        )

    def forget(self, places: frozenset[Place]) -> None:
        """Stops watching the values at these places, which are state of the code's own."""
        if places:
            self._held = [each for each in self._held if each.place not in places]

    def is_of(self, other: ReachedValues) -> bool:
        """Returns whether other values are of a model that shares a part with this one's."""
        return not self.parts.isdisjoint(other.parts)

    def renew(self) -> None:
        """Holds the present values."""
        self._held = [each.renewed() for each in self._held]

    def describe(self, places: Iterable[Place]) -> str:
        """Returns the names of places for a message."""
        return ", ".join(sorted({self._labels[each] for each in places if each in self._labels}))


_IN_USE: list[ReachedValues] = []
AFTER_STEPS: list[Callable[[], object]] = []  # of the attacks that are running
_RUNS: list[object] = []  # the runs that are going on, one inside of another


@contextmanager
def watching_values() -> Iterator[None]:
    """Lets `in_use` collect the values of models and attacks for one run, a ``with`` block.

    Between two runs a user may set any variable.
    """
    _RUNS.append(None)
    try:
        yield
    finally:
        _RUNS.pop()
        if not _RUNS:
            _IN_USE.clear()


@contextmanager
def step() -> Iterator[None]:
    """Marks a step of an attack's code, a ``with`` block; changes are looked for after it."""
    if AFTER_STEPS:
        renew_values()
    try:
        yield
    finally:
        after_step()


def after_step() -> None:
    """Looks for changes of others' values if a step of an attack's code has ended."""
    for look in AFTER_STEPS:
        look()


def in_use(values: ReachedValues) -> ReachedValues:
    """Adds values to those that every other party's code must leave as they are, in a run."""
    if _RUNS:
        _IN_USE.append(values)
    return values


def values_in_use() -> list[ReachedValues]:
    """Returns the values of the models and attacks of a run."""
    return list(_IN_USE)


@contextmanager
def restoring_values(own: ReachedValues | None = None) -> Iterator[None]:
    """Restores the values in use after a ``with`` block in which a model is called.

    Args:
        own: those of the model.  What its calls change of them is its state, such as a counter of
            calls, and is held no longer.
    """
    renew_values()
    try:
        yield
    finally:
        if own is not None:
            leave_own(own)
        for each in _IN_USE:
            each.restore()


def renew_values() -> None:
    """Records the present values, if no code of others has run since they were compared."""
    for values in _IN_USE:
        if values.changed():
            values.renew()


def leave_own(own: ReachedValues, places: frozenset[Place] | None = None) -> None:
    """Stops watching values that a model has changed itself; ``places`` if they are known."""
    changed = own.changed() if places is None else places
    for each in (own, *_IN_USE):
        if each.is_of(own):
            each.forget(changed)


class _ReachedCode:
    """Follows code from where it starts, and collects the values that it reads."""

    def __init__(self) -> None:
        self.held: list[HeldValue] = []
        self.labels: dict[Place, str] = {}
        self.parts: set[int] = set()
        self.starts: set[int] = set()  # the identities of objects where it began, and their classes
        self.modules: set[int] = set()  # of the variables of modules
        self.homes: set[int] = set()  # of those in whose modules a function is
        self._seen: set[int] = set()
        self._kept: list[object] = []  # so that no id is used twice
        self._later: deque[Callable[[], None]] = deque()

    def start(self, thing: object) -> None:
        """Follows a module or another object, and its class."""
        if isinstance(thing, nn.Module):
            for part in thing.modules():
                self.parts.add(id(part))
                self._class(type(part))
                for value in vars(part).values():
                    self._code(value)
        else:
            self.starts |= {id(thing), *map(id, type(thing).__mro__)}
            self._class(type(thing))
            self._object(thing, label=type(thing).__name__)

    def follow(self) -> None:
        """Follows everything, to the end or to the limit."""
        while self._later and len(self._seen) < MOST:
            self._later.popleft()()

    def _new(self, thing: object) -> bool:
        if id(thing) in self._seen:
            return False
        self._seen.add(id(thing))
        self._kept.append(thing)
        return True

    def _code(self, value: object) -> None:
        """Follows a value if it is code, or made of code."""
        if isinstance(value, MethodType | staticmethod | classmethod):
            value = value.__func__
        if isinstance(value, property):
            for each in (value.fget, value.fset):
                self._code(each)
        elif isinstance(value, type):
            self._class(value)
        elif isinstance(value, FunctionType):
            if is_authors_file(value.__code__.co_filename) and self._new(value):
                self._later.append(lambda: self._function(value))
        elif isinstance(inner := _wrapped(value), FunctionType):
            self._code(inner)

    def _class(self, kind: type) -> None:
        for each in kind.__mro__:
            if _is_authors(each.__module__) and self._new(each):
                self._later.append(lambda each=each: self._about_class(each))  # type: ignore[misc]

    def _about_class(self, kind: type) -> None:
        space = _AttributeSpace(kind)
        for name, value in list(vars(kind).items()):
            if name in GENERATED or name.startswith("__pydantic") or _is_slot(value):
                continue
            self._hold(id(kind), f"{kind.__qualname__.rpartition('<locals>.')[2]}.", space, name)

    def _function(self, function: FunctionType) -> None:
        self.homes.add(id(function.__globals__))
        name = function.__qualname__.rpartition("<locals>.")[2]
        for each in OF_FUNCTIONS:
            self._hold(id(function), f"{name}.", _AttributeSpace(function), each)
        for word, cell in zip(
            function.__code__.co_freevars, function.__closure__ or (), strict=False
        ):
            if word != "__class__" and self._new(cell):
                self._hold(id(cell), "", _AttributeSpace(cell), "cell_contents", label=word)
        self._names(function.__globals__, mentioned(function.__code__))
        self._code(getattr(function, "__wrapped__", None))

    def _names(self, space: dict[str, Any], names: frozenset[str]) -> None:
        """Holds what names stand for in a module, and in the modules that it names itself."""
        self.modules.add(id(space))
        for name in sorted(names & space.keys() - GENERATED):
            value = space[name]
            if isinstance(value, ModuleType):
                if _is_authors(value.__name__) and self._new((id(value), names)):
                    self._names(vars(value), names)
            elif _is_authors(space.get("__name__")):
                self._hold(id(space), "", space, name)

    def _hold(
        self, owner: int, prefix: str, space: _Space, key: Any, *, label: str | None = None
    ) -> None:
        """Holds the value at a place, and what it holds itself, and follows code."""
        try:
            value = space[key]
        except KeyError:
            return
        where = owner, label or str(key)
        self.labels.setdefault(where, f"{prefix}{label or key}")
        self.held.append(held(where, space, key, value))
        self._code(value)
        self._inside(value, where, depth=0)

    def _inside(self, value: object, where: Place, *, depth: int) -> None:
        """Holds the content of a collection, an object or a module."""
        if isinstance(value, list | dict) and len(value) <= MANY_ENTRIES and depth < 4:
            if not self._new(value):
                return
            pairs = list(value.items() if isinstance(value, dict) else enumerate(value))
            for key, each in pairs:
                if isinstance(each, Tensor | np.ndarray | list | dict | set | deque):
                    self.held.append(held(where, value, key, each))
                self._code(each)
                self._inside(each, where, depth=depth + 1)
        elif isinstance(value, tuple):
            for each in value[:MANY_ENTRIES]:
                if isinstance(each, Tensor | np.ndarray | list | dict | set | deque):
                    self.held.append(held(where, [each], 0, each))
                self._code(each)
                self._inside(each, where, depth=depth + 1)
        elif isinstance(value, nn.Module):
            if self._new(value):
                self._module(value, where)
        elif not isinstance(value, type) and _is_authors(type(value).__module__):
            self._class(type(value))
            self._object(value, label=self.labels[where])

    def _object(self, thing: object, *, label: str) -> None:
        if self._new(thing):
            for name in list(getattr(thing, "__dict__", {})):
                self._hold(id(thing), f"{label}.", vars(thing), name)

    def _module(self, module: nn.Module, where: Place) -> None:
        """Holds the tensors and attributes of a module that is read, but is no part of a model."""
        for part in module.modules():
            self._class(type(part))
            own = vars(part)
            for space in (own["_parameters"], own["_buffers"]):
                self.held += [held(where, space, name, each) for name, each in space.items()]
            plain = nn.Module.__dict__
            for name, each in list(own.items()):
                if not name.startswith("_") and name not in plain and name != "training":
                    self.held.append(held(where, own, name, each))


def mentioned(code: CodeType) -> frozenset[str]:
    """Returns the names of variables and attributes in a function and the functions inside it."""
    inner = (each for each in code.co_consts if isinstance(each, CodeType))
    return frozenset(code.co_names).union(*map(mentioned, inner))


def _wrapped(value: object) -> object:
    """Returns the function inside of a decorated one."""
    try:
        return getattr(value, "__wrapped__", None) or getattr(value, "func", None)
    except Exception:  # noqa: BLE001  an object of any library
        return None


def _is_slot(value: object) -> bool:
    return type(value).__name__ in ("member_descriptor", "getset_descriptor")


def _is_authors(module: object) -> bool:
    """Returns whether a module is of the author of a model or an attack, no installed package."""
    name = str(module)
    top = name.partition(".")[0]
    if top in sys.stdlib_module_names or top in ("gibbon", "gibbon_zoo", "torch", "numpy"):
        return False
    loaded = sys.modules.get(name)
    file = getattr(loaded, "__file__", None)
    return file is None or is_authors_file(str(Path(file)))
