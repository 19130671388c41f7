"""Models from code: ``path/to/net.py:build`` or ``package.module:Net``, with arguments."""

from __future__ import annotations

import copy
import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from gibbon.core.errors import ModelError, suggest
from gibbon.core.import_path import check_reference, importing, load_reference, running
from gibbon.models.classifier import Classifier
from gibbon.models.sources import Found, ModelSource, Preprocessing, place_of
from gibbon.specs.suite import ModelSpec

KEYWORD_KINDS = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
OPEN_KINDS = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


class Python(ModelSource):
    """A factory, a module's class, or a module that is there already, named by where it stands."""

    def check(self, spec: ModelSpec) -> None:
        """Refuses a file or a package that is not there."""
        check_reference(place_of(spec, "python"), what="model")

    def open(self, spec: ModelSpec) -> Found:
        """Returns what the factory makes.  Raises a `RequestError` where it makes no model."""
        reference = place_of(spec, "python")
        name = reference.rpartition(":")[2]
        with importing(reference):
            thing = load_reference(reference, what="model")
            module = make(thing, spec.arguments, name=name)
        return Found(module=module, identity=identity_of(f"python:{name}", spec.arguments))

    def preprocessing(self, spec: ModelSpec) -> Preprocessing | None:
        """Returns None: code does not say how pictures are prepared for it."""
        return None


def identity_of(name: str, arguments: Mapping[str, Any]) -> str:
    """Returns what results of a factory's model are filed under besides its tensors and answers.

    Two settings of a model that answers at random can't be told apart by its answers.  A path does
    not count: what is in the file shows in tensors and answers.

    >>> identity_of("python:build", {"sigma": 0.1})
    'python:build {"sigma": 0.1}'
    """
    settings = {
        key: value
        for key, value in arguments.items()
        if not (isinstance(value, str) and Path(value).exists())
    }
    text = json.dumps(settings, sort_keys=True, default=repr)
    return f"{name} {text}" if settings else name


def make(thing: object, arguments: Mapping[str, Any], *, name: str) -> nn.Module | Classifier:
    """Returns the module or classifier that a factory makes of keyword arguments.

    A module that is there already is copied, so that its owner's is never changed.
    Raises `ModelError` where it can't be called so, raises, or returns something else.
    """
    if isinstance(thing, nn.Module | Classifier):
        if arguments:
            raise ModelError(f"{name} is a module already and takes no arguments: leave them out")
        return copy.deepcopy(thing)
    if not callable(thing):
        raise ModelError(
            f"{name} is {_kind(thing)}: expected a function or a class that returns a torch module"
        )
    check_arguments(thing, arguments, name=name)
    with running(f"{name} raised"):
        made = thing(**arguments)
    if not isinstance(made, nn.Module | Classifier):
        raise ModelError(
            f"{name} returned {_kind(made)}: expected a torch.nn.Module or a "
            "gibbon.models.classifier.Classifier"
        )
    return made


def check_arguments(factory: Any, arguments: Mapping[str, Any], *, name: str) -> None:
    """Refuses arguments that a factory does not take, and those lacking that it needs.

    Raises `ModelError` with the nearest name from the factory's signature.
    """
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):  # written in C: it says so itself when it is called
        return
    taken = [each.name for each in parameters if each.kind in KEYWORD_KINDS]
    takes_any = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters)
    for given in arguments if not takes_any else ():
        if given not in taken:
            known = f" It takes {', '.join(taken)}." if taken else " It takes none."
            raise ModelError(f"{name} takes no argument {given!r}{suggest(given, taken)}{known}")
    lacking = [
        each.name
        for each in parameters
        if each.default is each.empty
        and each.kind not in OPEN_KINDS
        and (each.name not in arguments or each.kind not in KEYWORD_KINDS)
    ]
    if lacking:
        given = " ".join(f"--arg {each}=..." for each in lacking)
        written = ", ".join(f"{each} = ..." for each in lacking)
        raise ModelError(
            f"{name} needs the argument{'s' if len(lacking) > 1 else ''} {', '.join(lacking)}: "
            f"{given} (arguments = {{ {written} }} in a suite)"
        )


def _kind(thing: object) -> str:
    return "None" if thing is None else f"of type {type(thing).__name__}"
