"""Digests of cells: what an outcome is stored under.

The digest of a cell covers the data, the model, the attack and the seed (`attacked_digest`).  One
of our attacks goes by its registered name, version and parameters (`attack_part`):
`tests/attacks/golden` holds stored candidates of each, so that nobody changes an attack's answers
without raising its version.  An attack of somebody else goes by its class, version, parameters and
its author's code.
"""

from __future__ import annotations

import hashlib
import json
import uuid

from gibbon.attacks import registered_name
from gibbon.attacks.base import Attack
from gibbon.attacks.toolkit.parameter_text import parameter_texts
from gibbon.attacks.worst_of import members_of
from gibbon.core.import_path import module_name
from gibbon.core.threat import ThreatModel
from gibbon.models.attacked_view import stand_in
from gibbon.runner.plan.attack_code import attack_code, callable_code
from gibbon.specs.adaptation import UNCHANGED, Adaptation
from gibbon.specs.base import UNATTACKED

DIGEST_FORMAT = 2  # goes up when the meaning of a stored outcome changes
UNREADABLE = (
    "the code of the attack can't be read (it, or a function that it uses, was typed into a "
    "console or a notebook, its file has changed since it was imported, or it holds an object "
    "without a readable state), so that results are never taken from an earlier run; write it into "
    "a file and import it from there"
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
    named = [name] if name is not None else [module_name(kind.__module__), kind.__qualname__]
    code = [each if each is not None else uuid.uuid4().hex for each in attack_code(attack)]
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
    name = getattr(function, "__qualname__", type(function).__qualname__)
    return [name, callable_code(function) or uuid.uuid4().hex]


def is_readable(attack: Attack) -> bool:
    """Returns whether the code of an attack and of its members can be read, unless it is ours."""
    return None not in attack_code(attack) and all(map(is_readable, attack.made_of))
