"""Protects variables that a model's or an attack's code reads from changes by other code.

An attack may set a variable of the model's file, or an attribute of another attack's class, and a
model those of another model.  All of them are compared after its code has run, put back, and named.
What a party's own code reads it may also change, such as a counter of calls.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from gibbon.attacks.base import Attack, is_ours
from gibbon.core.errors import OutputError
from gibbon.models.classifier import Classifier
from gibbon.models.held_values import Place
from gibbon.models.reached_values import (
    AFTER_STEPS,
    ReachedValues,
    in_use,
    leave_own,
    renew_values,
    values_in_use,
)
from gibbon.models.snapshot import PATCHED

OTHERS = (
    "the {} changed what the code of others reads ({}), which would change their numbers; it was "
    "put back: run it with --isolate"
)
_OF_ATTACKS: weakref.WeakKeyDictionary[ReachedValues, int] = weakref.WeakKeyDictionary()


@dataclass
class ChangedValues:
    """The values that were put back while an attack ran, with their names.

    Args:
        source: the model under attack.
        own: the places that the attack's own code reads.
        places: the places of the values.
        names: their names, by place.
        patched: whether a model that is not under attack was hooked or patched.
    """

    source: Classifier
    own: frozenset[Place] = frozenset()
    places: set[Place] = field(default_factory=set)
    names: dict[Place, str] = field(default_factory=dict)
    patched: bool = False

    def add(self, names: dict[Place, str]) -> None:
        """Adds values that were put back, by place."""
        self.places |= names.keys()
        self.names |= names

    def text(self, places: frozenset[Place]) -> str:
        """Returns the names of places for a message."""
        return ", ".join(sorted({self.names[each] for each in places}))


_RUNNING: list[ChangedValues] = []


def hold_values(attack: Attack) -> ReachedValues | None:
    """Returns what the code of an attack reads as it is now, or when it was first held.

    None for an attack of ours.
    """
    if is_ours(attack):
        return None
    for values in values_in_use():
        if _OF_ATTACKS.get(values) == id(attack):
            return values
    values = in_use(ReachedValues([attack]))
    _OF_ATTACKS[values] = id(attack)
    return values


@contextmanager
def noting_values(attack: Attack | None, source: Classifier) -> Iterator[ChangedValues]:
    """Notes the values of others that an attack on a model changes in a block, and puts them back.

    Those that its own code reads are its own, and stay, unless a model reads them, too.
    """
    own = None if attack is None else hold_values(attack)
    renew_values()
    touched = ChangedValues(source, frozenset() if own is None else _own_places(own))

    def look() -> None:
        touched.add(_put_back(touched.own))

    _RUNNING.append(touched)
    AFTER_STEPS.append(look)
    try:
        yield touched
    except BaseException:
        look()
        raise
    finally:
        _RUNNING.remove(touched)
        AFTER_STEPS.remove(look)
        if own is not None:
            own.renew()


@contextmanager
def unchanged_values(model: Classifier) -> Iterator[None]:
    """Restores what the code of models and attacks reads, after calls of a model in a block.

    Raises `OutputError` if the model changed what its own code does not read.
    """
    at_work = frozenset[Place]().union(*(each.own for each in _RUNNING))
    renew_values()
    try:
        yield
    finally:
        if model.reached is not None:
            leave_own(model.reached)
        names = _put_back(at_work)
    own = frozenset() if model.reached is None else model.reached.places
    if left := names.keys() - own:
        found = ", ".join(sorted({names[each] for each in left}))
        raise OutputError(OTHERS.format("model", found))


def _own_places(values: ReachedValues) -> frozenset[Place]:
    """Returns the places that the code of an attack may change, of what attacks read."""
    others = frozenset[Place]().union(
        *(each.core for each in values_in_use() if each in _OF_ATTACKS and each is not values)
    )
    return (values.own - others) | values.core


def restore_target(model: Classifier) -> None:
    """Restores the state of a model that is not under attack, before examples are scored on it.

    The attack of another library that is running may have changed it.
    """
    running = [each for each in _RUNNING if each.own and each.source is not model]
    if not running or model.snapshot is None:
        return
    if (difference := model.snapshot.difference()) is not None:
        model.snapshot.restore()
        for each in running:
            each.patched |= difference == PATCHED


def _put_back(own: frozenset[Place]) -> dict[Place, str]:
    """Restores all values, and returns the names of those that had changed, by place.

    Values of attacks at the places ``own`` stay: the code of the attack at work reads them.
    """
    found: dict[Place, str] = {}
    for values in values_in_use():
        kept = own if values in _OF_ATTACKS else frozenset[Place]()
        changed = values.restore(but=kept)
        found |= {each: values.describe([each]) for each in changed}
    return found
