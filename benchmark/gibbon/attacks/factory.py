"""Construction of attacks from specs: parameters are checked, and errors name their key path."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import is_pydantic_dataclass
from pydantic_core import ErrorDetails

from gibbon.attacks import ATTACKS, IN_NORM
from gibbon.attacks.adapters import ATTACK_SOURCES
from gibbon.attacks.base import Attack, MemberError, is_attack
from gibbon.core.errors import MissingLibraryError, RequestError, SpecError, suggest
from gibbon.core.import_path import is_reference, load_reference
from gibbon.core.plain_text import shown
from gibbon.core.registry import their_code
from gibbon.core.threat import Norm
from gibbon.models.attacked_view import stand_in
from gibbon.specs.problems import WORDS, key_path
from gibbon.specs.suite import AttackSpec, DatasetSpec, ModelSpec


def build_attack(spec: AttackSpec, *, where: str = "") -> Attack:
    """Builds the attack of a spec, with its parameters checked against the attack's fields.

    A name with a colon is an attack of another library (see `attack_class`).  ``"pgd"`` in L1 is
    a different class than in L∞ and L2 (`gibbon.attacks.IN_NORM`).

    Raises `UnknownNameError` for an unknown attack and `SpecError` for an unknown parameter, a
    wrong value, or a norm that the attack does not support.
    """
    name = IN_NORM.get((spec.name, spec.norm), spec.name)
    return make_attack(
        attack_class(name, where=f"{where}.name" if where else ""), spec, where=where
    )


def make_attack(attack: type[Attack], spec: AttackSpec, *, where: str = "") -> Attack:
    """Builds an attack of this class from a spec, with the checks of `build_attack`."""
    prefix = f"{where}." if where else ""
    if not is_attack(attack):
        raise SpecError(
            f"attack {spec.name!r} must be a dataclass derived from gibbon.attacks.base.Attack, "
            f"got {attack!r}",
            where=where,
        )
    if not attack.norms or not all(isinstance(each, Norm) for each in attack.norms):
        raise SpecError(
            f"attack {spec.name!r} must say in which norms it works, as `norms = (Norm.LINF,)`, "
            f"got {attack.norms!r}",
            where=where,
        )
    known = _parameter_names(attack)
    for key in spec.parameters:
        if key in attack.reserved:
            raise SpecError(
                f"attack {spec.name!r} takes no {key!r} here: {attack.reserved[key]}",
                where=f"{prefix}{key}",
            )
        if key not in known:
            choices = [*known, *AttackSpec.model_fields]
            raise SpecError(
                f"attack {spec.name!r} has no parameter {key!r}"
                f"{_key_of_another(key) or suggest(key, choices)} "
                f"Its parameters: {', '.join(known) or 'none'}",
                where=f"{prefix}{key}",
            )
    _check_norm(spec, attack, where=f"{prefix}norm")
    try:
        built: Attack = _make(attack, spec.parameters)
    except (ValidationError, SpecError) as error:
        raise explained(error, where=where) from error
    if not issubclass(type(built), Attack):
        raise SpecError(
            f"attack {spec.name!r} makes {shown(built)} when it is called, expected an attack",
            where=where,
        )
    _check_norm(spec, built, where=f"{prefix}norm")  # of a list: those that all members support
    return built


def check_adaptation(spec: AttackSpec, attack: Attack, *, where: str = "") -> None:
    """Checks ``eot``, ``backward`` and ``before`` of a spec, without a model.

    Raises `SpecError` if the attack takes no gradients and a key is about gradients, or if a
    function can't be imported.
    """
    prefix = f"{where}." if where else ""
    if not attack.needs_gradient:
        for key, given in (("eot", spec.eot not in (None, 1)), ("backward", spec.backward)):
            if given:
                raise SpecError(
                    f"attack {spec.name!r} takes no gradients, which {key} is about: leave it out, "
                    "or take an attack that does, such as pgd",
                    where=f"{prefix}{key}",
                )
    for path, reference in (spec.backward or {}).items():
        try:
            stand_in(reference)
        except RequestError as error:
            message = str(error).removeprefix("backward: ").removeprefix("backward ")
            raise SpecError(message, where=f"{prefix}backward.{path}") from error


def _key_of_another(key: str) -> str:
    """Returns whose key it is, if it belongs to a dataset or a model; empty if to neither."""
    for party, described in (("dataset", DatasetSpec), ("model", ModelSpec)):
        if key in described.model_fields:
            return (
                f", and the {party} takes it: give it in the {party}'s table, or in Python "
                f"{described.__name__}(..., {key}=...)."
            )
    return ""


def _check_norm(spec: AttackSpec, attack: Attack | type[Attack], *, where: str) -> None:
    if spec.norm is None or spec.norm in attack.norms:
        return
    message = f"attack {spec.name!r} works in {', '.join(attack.norms)}, not in {spec.norm}"
    members = () if isinstance(attack, type) else attack.made_of
    without = [type(each).__name__ for each in members if spec.norm not in each.norms]
    if without:
        message += f": {', '.join(without)} among its members can't"
        message += "".join(
            f"; {other!r} is {name} in {norm}"
            for (name, norm), other in IN_NORM.items()
            if norm == spec.norm
        )
    raise SpecError(message, where=where)


def attack_class(name: str, *, where: str = "") -> type[Attack]:
    """Returns the class of a registered attack, of another library's, or of a reference.

    These are names such as ``"pgd"``, ``"foolbox:LinfPGD"``, ``"attacks/mine.py:Mine"`` or
    ``"my_package.attacks:Mine"``.

    Raises a `RequestError` if there is no such attack or it can't be imported, and a
    `MissingLibraryError` if its library is not installed.
    """
    if is_code(name):
        try:
            found: type[Attack] = referenced(name)
        except RequestError as error:
            raise SpecError(str(error), where=where) from error
        return found
    scheme, colon, rest = name.partition(":")
    if not colon:
        return ATTACKS.load(name, where=where)
    source = ATTACK_SOURCES.load(scheme, where=where)
    try:
        with their_code(f"attack {name!r} can't be loaded"):
            return source.attack(rest)
    except MissingLibraryError as error:
        raise MissingLibraryError(str(error), where=where) from error
    except RequestError as error:
        raise SpecError(str(error), where=where) from error


def is_code(name: str) -> bool:
    """Returns whether the name of an attack refers to a class in a file or a module.

    >>> is_code("attacks/mine.py:Mine"), is_code("foolbox:LinfPGD"), is_code("pgd")
    (True, False, False)
    """
    scheme, colon, _ = name.partition(":")
    if not is_reference(name):
        return False
    if not colon:
        return True
    if scheme in ATTACK_SOURCES.near_names():
        return False
    if "." in scheme or importlib.util.find_spec(scheme) is not None:
        return True
    # A name that is no module, and near to that of a library, is a misspelt library.
    return scheme not in ATTACK_SOURCES and suggest(scheme, ATTACK_SOURCES.names()) == "."


def referenced(name: str) -> Any:
    """Returns the object that a reference to an attack names.  Raises a `RequestError`."""
    return load_reference(name, what="attack")


def _make(attack: Any, parameters: Mapping[str, Any]) -> Any:
    if is_pydantic_dataclass(attack):
        return attack(**parameters)
    return TypeAdapter(attack).validate_python(dict(parameters))


def _parameter_names(attack: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(attack) if field.init]


def explained(error: ValidationError | SpecError, *, where: str) -> SpecError:
    """Returns an error about an attack's parameters whose lines begin with a key path."""
    if isinstance(error, MemberError):
        prefix = f"{where}." if where else ""
        return SpecError("\n".join(f"{prefix}{line}" for line in str(error).splitlines()))
    if isinstance(error, SpecError):
        return SpecError(str(error), where=where)
    lines = []
    for several in _by_value(error.errors()):
        problem = several[0]
        # The problems of a value that may be of several kinds end with the kind.
        location = list(problem["loc"])[: 1 if len(several) > 1 else None]
        place = ".".join(part for part in (where, key_path(location)) if part)
        wanted = [each["msg"].removeprefix("Value error, ") for each in several]
        wanted = [wanted[0], *(each.removeprefix("Input should be ") for each in wanted[1:])]
        what = f"{', or '.join(wanted)}, got {shown(problem['input'])}"
        if problem["type"] == "missing":
            what = WORDS["missing"]
        lines.append(f"{place}: {what}" if place else what)
    return SpecError("\n".join(lines))


def _by_value(problems: Sequence[ErrorDetails]) -> list[list[ErrorDetails]]:
    """Returns problems in groups of those of one value of one parameter."""
    groups: list[list[ErrorDetails]] = []
    for each in problems:
        last = groups[-1][-1] if groups else None
        alike = last is not None and last["loc"][:1] == each["loc"][:1]
        if last is not None and alike and last["input"] is each["input"] and len(each["loc"]) > 1:
            groups[-1].append(each)
        else:
            groups.append([each])
    return groups
