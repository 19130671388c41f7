"""Digests of the code of attacks, and of functions that stand in for a backward pass.

An attack has no probe that would show a change as a model's answers do, so two things are put
together: the text of its author's modules (`code_digest`), and everything that its functions reach
as the process holds it (`Reach`), such as a variable that was set after the import, what a function
is closed over, or a method that was replaced.  Code that can't be read has no digest.
"""

from __future__ import annotations

import dataclasses
import hashlib
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from torch import nn

from gibbon.attacks import registered_name
from gibbon.attacks.base import Attack, parameters_of
from gibbon.attacks.toolkit.parameter_text import MANY
from gibbon.runner.plan.code_digest import PACKAGE, code_digest, is_library, text_in_file
from gibbon.runner.plan.reach import Reach
from gibbon.runner.plan.replaced import replaced_in


def attack_code(attack: Attack) -> list[str | None]:
    """Returns digests of an attack's code, each None if it can't be read.

    An attack of ours has none, as long as nobody replaced one of its methods or of the functions
    that it calls.  The attacks of a list are left out.
    """
    kind = type(attack)
    name = registered_name(kind)
    values = _kinds(parameters_of(attack))
    own = [] if name is not None else [_digest(attack, kinds=[kind], values=values)]
    found = replaced_in(attack)
    return [*own, *_library_code(kind), *([_digest(found)] if found else [])]


def callable_code(function: object) -> str | None:
    """Returns a digest of the code of a function, or of an object that is called like one.

    None if it can't be read.
    """
    kind = type(function)
    ours = kind.__module__.partition(".")[0] in (PACKAGE, "torch", *sys.stdlib_module_names)
    return _digest(function, kinds=[] if ours or kind.__module__ == "builtins" else [kind])


def _digest(
    start: object, *, kinds: Iterable[type] = (), values: Iterable[type] = ()
) -> str | None:
    kinds = list(kinds)
    reach = Reach(
        packages=frozenset(kind.__module__.partition(".")[0] for kind in kinds),
        everything=True,
        in_file=text_in_file,
    )
    try:
        reached = reach.digest(reach.of(start))
    except RecursionError:
        return None
    text = code_digest(kinds, values=values, functions=reach.functions)
    if text is None or reach.unknown:
        return None
    return hashlib.sha256(f"{text} {reached}".encode()).hexdigest()


def _kinds(value: object) -> Iterator[type]:
    """Yields the classes of a value and of what it holds."""
    yield type(value)
    if isinstance(value, type):
        yield value
    elif isinstance(value, Mapping):
        for pair in value.items():
            yield from (kind for each in pair for kind in _kinds(each))
    elif isinstance(value, MANY):
        yield from (kind for each in value for kind in _kinds(each))
    elif isinstance(value, nn.Module):
        yield from map(type, value.modules())
    elif dataclasses.is_dataclass(value) and not isinstance(value, Attack):
        for field in dataclasses.fields(value):
            yield from _kinds(getattr(value, field.name))


def _library_code(kind: type[Attack]) -> list[str | None]:
    """Returns a digest of the files of an adapted library that is no installed release.

    Those of a release go by its version, which is among the parameters.
    """
    library = getattr(getattr(kind, "foreign", None), "library", None)
    file = getattr(sys.modules.get(library.module), "__file__", None) if library else None
    if file is None or is_library(file):
        return []
    found = hashlib.sha256()
    for path in sorted(Path(file).parent.rglob("*.py")):
        found.update(f"{path.relative_to(Path(file).parent)}".encode())
        found.update(hashlib.sha256(path.read_bytes()).digest())
    return [found.hexdigest()]
