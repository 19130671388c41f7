"""Digests of cells: what an outcome is stored under.

The digest of a cell covers the data, the model, the attack and the seed (`attacked_digest`).  One
of our attacks goes by its registered name, version and parameters (`attack_part`):
`tests/attacks/golden` holds stored candidates of each, so that nobody changes an attack's answers
without raising its version.  An attack of somebody else goes by its class, version, parameters and
its author's code.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import uuid
from collections.abc import Iterator, Mapping
from types import FunctionType

from torch import nn

from gibbon.attacks import registered_name
from gibbon.attacks.base import Attack, parameters_of
from gibbon.attacks.toolkit.parameter_text import MANY, parameter_texts
from gibbon.attacks.worst_of import members_of
from gibbon.core.threat import ThreatModel
from gibbon.models.attacked_view import stand_in
from gibbon.runner.plan.code_digest import code_digest
from gibbon.specs.adaptation import UNCHANGED, Adaptation
from gibbon.specs.base import UNATTACKED

DIGEST_FORMAT = 2  # goes up when the meaning of a stored outcome changes
UNREADABLE = (
    "the code of the attack can't be read (it was typed into a console or a notebook, or its file "
    "has changed since it was imported), so that results are never taken from an earlier run; "
    "write it into a file and import it from there"
)


def digest_of(**parts: object) -> str:
    """Returns a digest of named parts, each of them something that JSON can hold."""
    text = json.dumps({"format": DIGEST_FORMAT, **parts}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def unattacked_digest(data: str, source: str) -> str:
    """Returns the digest of an unattacked cell, from those of its dataset and its model."""
    return digest_of(data=data, source=source, attack=UNATTACKED)


def attacked_digest(
    data: str, source: str, threat: ThreatModel, *, attack: list[object], key: int, **more: object
) -> str:
    """Returns the digest of a cell: changing any of these parts computes the cell again.

    Args:
        data: digest of the dataset's content and the ids of the examples.
        source: digest of the model under attack.
        threat: norm, epsilon and bounds.
        attack: see `attack_part`.
        key: key of the attack's random streams, which holds the seed of the suite.
        **more: the cell that this one follows, whether a list is run member by member, and how the
            attack is adapted (`adaptation_part`).
    """
    return digest_of(
        data=data,
        source=source,
        attack=attack,
        key=key,
        norm=threat.norm,
        epsilon=str(threat.epsilon.value),
        bounds=threat.bounds and [threat.bounds.low, threat.bounds.high],
        **more,
    )


def attack_part(attack: Attack) -> list[object]:
    """Returns the attack's part of a cell's digest, as values of JSON.

    If code can't be read, this is something that no other run has.
    """
    kind = type(attack)
    name = registered_name(kind)
    named = [name] if name is not None else [kind.__module__, kind.__qualname__]
    code = [] if name is not None else [_code(attack) or uuid.uuid4().hex]
    members = map(attack_part, attack.made_of)
    own = [adaptation_part(each.adaptation(UNCHANGED)) for each in members_of(attack)]
    adapted = [{"adapted": own}] if any(own) else []
    return [*named, kind.version, parameter_texts(attack), *code, *members, *adapted]


def adaptation_part(adaptation: Adaptation) -> dict[str, object]:
    """Returns the adaptation's part of a cell's digest; empty if it changes nothing.

    A function goes by its name and its author's code.  If that can't be read, this is something
    that no other run has.
    """
    part = adaptation.shown
    if adaptation.backward:
        part["backward"] = {path: _function(text) for path, text in adaptation.backward}
    return part


def _function(reference: str) -> list[str]:
    function = stand_in(reference)
    if function is None:
        return [reference]
    kind = type(function)
    if isinstance(function, FunctionType):  # the class stands for the module of the function
        kind = type("Function", (), {"__module__": function.__module__, "call": function})
    name = getattr(function, "__qualname__", kind.__qualname__)
    return [name, code_digest([kind]) or uuid.uuid4().hex]


def is_readable(attack: Attack) -> bool:
    """Says whether the code of an attack and of its members can be read, unless it is ours."""
    own = registered_name(type(attack)) is not None or _code(attack) is not None
    return own and all(map(is_readable, attack.made_of))


def _code(attack: Attack) -> str | None:
    return code_digest([type(attack)], values=_kinds(parameters_of(attack)))


def _kinds(value: object) -> Iterator[type]:
    """Yields the classes of a value and of what it holds."""
    yield type(value)
    if isinstance(value, Mapping):
        for pair in value.items():
            yield from (kind for each in pair for kind in _kinds(each))
    elif isinstance(value, MANY):
        yield from (kind for each in value for kind in _kinds(each))
    elif isinstance(value, nn.Module):
        yield from map(type, value.modules())
    elif dataclasses.is_dataclass(value) and not isinstance(value, type | Attack):
        for field in dataclasses.fields(value):
            yield from _kinds(getattr(value, field.name))
