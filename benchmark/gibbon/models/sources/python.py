"""Models from Python code: ``path/to/net.py:build`` or ``package.module:Net``, with arguments."""

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
from gibbon.models.sources import ModelSource, OpenedModel, place_of
from gibbon.specs.suite import ModelSpec

KEYWORD_KINDS = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
OPEN_KINDS = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


class Python(ModelSource):
    """References to a factory, a class of modules, or a module object."""

    def check(self, spec: ModelSpec) -> None:
        """Raises `RequestError` if the file or package does not exist."""
        check_reference(place_of(spec, "python"), what="model")

    def open(self, spec: ModelSpec) -> OpenedModel:
        """Returns the factory's model.  Raises a `RequestError` if it returns no model."""
        reference = place_of(spec, "python")
        name = reference.rpartition(":")[2]
        with importing(reference):
            thing = load_reference(reference, what="model")
            module = make(thing, spec.arguments, name=name)
        return OpenedModel(module=module, identity=identity_of(f"python:{name}", spec.arguments))


def identity_of(name: str, arguments: Mapping[str, Any]) -> str:
    """Returns the text that enters the digest of a factory's model.

    It holds the arguments, since the predictions of a randomised model do not identify its
    settings.  Paths are left out: the content of a file shows in tensors and predictions.

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
    """Returns the module or classifier that a factory makes from keyword arguments.

    A module object is copied, so that its owner's is never changed.
    Raises `ModelError` if the call fails or returns anything else.
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
    """Checks keyword arguments against a factory's signature.

    Raises `ModelError`, with the nearest parameter, if one is unknown, or a required one missing.
    """
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):  # written in C, without a signature: the call will raise
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
