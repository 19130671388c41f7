"""Finds functions and constants of this package that somebody replaced while it runs.

An attack of ours goes by its name and version, under which `tests/attacks/golden` holds its
candidates.  That holds for the code of its files alone.  So `replaced_in` follows an attack's
classes, and what their functions name of this package, and returns what isn't from there: a method
that was set on a class or an object, a function that was put in place of another, a constant of an
attack that has another value than its file gives it.
"""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from types import FunctionType

from gibbon.attacks.base import Attack
from gibbon.runner.plan.bytecode import codes_in
from gibbon.runner.plan.code_digest import PACKAGE, is_library
from gibbon.runner.plan.reach import is_generated

HERE = Path(__file__).parents[2]
ATTACKS = str(HERE / "attacks")
CONSTANTS = (bool, int, float, complex, str, bytes, tuple)
# Attributes of an attack's class that change no candidate, or are in the digest themselves.
NO_PART = frozenset(
    {"version", "needs_gradient", "channels", "sparse", "iterate", "norms", "departures"}
)


def replaced_in(attack: Attack) -> list[object]:
    """Returns functions and constants that an attack doesn't have from the files of this package.

    Parameters are left out, and so are the classes of other authors.
    """
    kind = type(attack)
    found: list[object] = []
    if _is_ours(kind):
        fields = {field.name for field in dataclasses.fields(attack)}  # type: ignore[arg-type]
        own = sorted(vars(attack).keys() - fields - NO_PART)
        found += [vars(attack)[name] for name in own if hasattr(kind, name)]
    waiting: list[object] = [each for each in kind.__mro__ if _is_ours(each)]
    seen = set(map(id, waiting))
    while waiting:
        thing = waiting.pop()
        for name, value in _class_parts(thing) if isinstance(thing, type) else _named(thing):
            if isinstance(value, CONSTANTS):
                if _differs(thing, name, value):
                    found.append([name, value])
            elif isinstance(value, FunctionType | type) and id(value) not in seen:
                seen.add(id(value))
                if _is_foreign(value):
                    found.append(value)
                elif _is_ours(value):
                    waiting.append(value)
    return found


def _class_parts(kind: type) -> Iterator[tuple[str, object]]:
    for name, value in sorted(vars(kind).items()):
        if isinstance(value, property):
            yield from ((name, each) for each in (value.fget, value.fset) if each)
        elif not name.startswith("__") or isinstance(value, FunctionType):
            yield name, getattr(value, "__func__", value)


def _named(thing: object) -> Iterator[tuple[str, object]]:
    """Yields what the global names of a function stand for."""
    assert isinstance(thing, FunctionType)  # noqa: S101  by `replaced_in`
    space = thing.__globals__
    names = {name for code in codes_in(thing.__code__) for name in code.co_names}
    yield from ((name, space[name]) for name in sorted(names & space.keys()))


def _is_ours(value: type | FunctionType) -> bool:
    if isinstance(value, FunctionType):
        return value.__code__.co_filename.startswith(str(HERE))
    return value.__module__.startswith(f"{PACKAGE}.attacks.")


def _is_foreign(value: type | FunctionType) -> bool:
    """Returns whether a function is neither of this package nor of a library."""
    if not isinstance(value, FunctionType):
        return False
    return not (_is_ours(value) or is_library(value.__code__.co_filename) or is_generated(value))


def _differs(owner: object, name: str, value: object) -> bool:
    """Returns whether a constant of an attack's file has another value than the file gives it."""
    if name in NO_PART:
        return False
    if isinstance(owner, FunctionType):
        file, scope = owner.__code__.co_filename, ""
    else:
        assert isinstance(owner, type)  # noqa: S101  by `replaced_in`
        file, scope = f"{HERE.parent / owner.__module__.replace('.', '/')}.py", owner.__qualname__
    written = _constants(file).get((scope, name), value) if file.startswith(ATTACKS) else value
    return type(written) is type(value) and written != value


@lru_cache(maxsize=256)
def _constants(file: str) -> Mapping[tuple[str, str], object]:
    """Returns the values that a file gives to constants, by the name of the class and their own."""
    found: dict[tuple[str, str], object] = {}
    try:
        tree = ast.parse(Path(file).read_bytes())
    except (OSError, SyntaxError, ValueError):
        return found
    classes = [each for each in tree.body if isinstance(each, ast.ClassDef)]
    for scope, body in [("", tree.body), *((each.name, each.body) for each in classes)]:
        for node in body:
            targets = (
                node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            )
            value = node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None
            for target in targets:
                if isinstance(target, ast.Name) and value is not None:
                    try:
                        found[scope, target.id] = ast.literal_eval(value)
                    except ValueError:
                        found.pop((scope, target.id), None)
    return found
