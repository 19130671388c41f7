"""The guard around an attack: copies of inputs, seeded generators, and a check of the model.

What an attack left changed fails its cell.  A model may change the same things in a pass of its
own: then the model is run alone on a copy of the inputs, and what that changes is not the attack's
fault (`gibbon.verify.side_effects`).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch

from gibbon.attacks.base import Attack, is_ours
from gibbon.attacks.toolkit.gradients import check_finite_gradients
from gibbon.core.errors import AttackError, OutputError
from gibbon.core.global_state import Changes, GlobalState
from gibbon.core.plain_tensors import equal
from gibbon.core.rng import seeded_globals
from gibbon.datasets.base import Batch
from gibbon.models.classifier import CHANGED_INPUT, Classifier, Watch
from gibbon.models.reached_values import leave_own
from gibbon.models.snapshot import CHANGED_ATTRIBUTES, CHANGED_TENSORS, Snapshot
from gibbon.verify.others_values import OTHERS, noting_values
from gibbon.verify.side_effects import side_effects_of
from gibbon.verify.unchanged_state import LEFT_LATER

LEFT_THREADS = "an attack left threads running"
PATCHED_ANOTHER = (
    "the attack hooked or patched a model that it did not run on, or a class of torch that it is "
    "made of; it was put back: run it with --isolate"
)
CHANGED_CLASSIFIER = "changed the classifier"
ISOLATE = "run it with --isolate"
OF_CALLS = ("_watch", "_lent", "_copied")  # fields of a classifier that its own calls set


@dataclass(frozen=True)
class Guarded:
    """A batch for an attack, whose inputs are a copy, and the record of the model's calls."""

    batch: Batch
    watch: Watch


@contextmanager
def guarding(
    source: Classifier,
    batch: Batch,
    *,
    seed: int = 0,
    room: int = 0,
    attack: Attack | None = None,
) -> Iterator[Guarded]:
    """Lends an attack a copy of the inputs, and restores the model and global state afterwards.

    Our own attacks draw from streams.  Attacks of other libraries may draw from the generators of
    torch, numpy or random, which start from ``seed``.  Generators, global state, the model and the
    classifier are put back, also after an exception.  ``room`` is the size of a full batch, if this
    one is smaller.  ``attack`` is the attack, of which ours are trusted with global state.  One of
    ours on a model of known code draws from no global generator and changes tensors by operations
    that torch counts: then generators are left alone, unless the model is random, and contents are
    not compared.

    Raises `AttackError` if the attack changed its inputs, the model or the classifier, replaced
    functions of torch, hooked all modules or set variables that other code reads, and
    `OutputError` if an input gradient was NaN: ``sign(NaN)`` is 0 in torch, so that the attack
    would have stayed at its starting point and shown nothing; or if it was the model that changed
    the inputs.
    """
    snapshot = source.snapshot or Snapshot(source.module)
    fields = dict(source.__dict__)
    trusted = attack is not None and is_ours(attack)
    known = trusted and not source.foreign
    given = Batch(batch.ids.clone(), batch.inputs.clone(), batch.labels.clone())
    original = None if trusted else batch.inputs
    watching = source.watching(given.inputs, room=room, original=original)
    state = None if known else GlobalState.now(ours=not trusted)
    rules = [(each, dict(vars(each))) for each in (source.bounds, source.outputs, source.draws)]
    changes, failed = Changes(), False
    noting = noting_values(attack, source)
    draws_none = known and source.draws.count == 1
    seeding = nullcontext() if draws_none else _global_state(batch.inputs.device, seed)
    with seeding, watching as watch:
        try:
            with noting as touched:
                yield Guarded(given, watch)
        except Exception:
            failed = True
            raise
        finally:
            if state is not None:
                changes = state.put_back()
            difference = snapshot.difference(but=source.own_places, values=not known)
            places = frozenset() if difference is None else snapshot.changed_places()
            if difference is not None or source.own_places:
                snapshot.restore()
            stays = source.is_watched_by(watch) and not _changed(source, fields, rules)
            if difference is None and not stays:
                difference = CHANGED_CLASSIFIER
            source.__dict__.clear()
            source.__dict__.update(fields)
            for rule, values in rules:
                vars(rule).clear()
                vars(rule).update(values)
            if failed and difference == CHANGED_CLASSIFIER:  # which is why our own code failed
                raise AttackError(f"the attack {difference}")
    changed_input = given.inputs._version != watch.version or not (
        known or equal(given.inputs, batch.inputs)
    )
    others = set(touched.places)
    if difference is not None or changed_input or changes.code or others:
        own = side_effects_of(source, batch, snapshot)
        if difference in (CHANGED_TENSORS, CHANGED_ATTRIBUTES) and places <= own.places:
            source.own_places |= places
            difference = None
        if changed_input and own.changes_input:
            raise OutputError(CHANGED_INPUT)
        changes = changes._replace(code=tuple(set(changes.code) - set(own.changes.code)))
        others -= own.values
        if source.reached is not None:
            leave_own(source.reached, own.values)
    if difference is not None:
        raise AttackError(f"the attack {difference}")
    if touched.patched:
        raise AttackError(PATCHED_ANOTHER)
    if changed_input:
        raise AttackError("the attack changed its inputs in place")
    if trusted and source.reached is not None:
        leave_own(source.reached, frozenset(others) & source.reached.places)
        others -= source.reached.places
    if others:
        party, kind = ("model", OutputError) if trusted else ("attack", AttackError)
        raise kind(OTHERS.format(party, touched.text(frozenset(others))))
    if changes.code and trusted:
        raise OutputError(LEFT_LATER.format(", ".join(sorted(changes.code))))
    if changes.code:
        raise AttackError(
            f"the attack left global state changed ({', '.join(sorted(changes.code))}), which "
            f"would change the numbers of other cells; it was put back: {ISOLATE}"
        )
    if state is not None and not trusted and (running := state.new_threads()):
        warnings.warn(
            f"{LEFT_THREADS} ({', '.join(running)}), which may change other numbers: {ISOLATE}",
            RuntimeWarning,
            stacklevel=2,
        )
    check_finite_gradients(watch.gradients)


def _changed(
    source: Classifier, fields: dict[str, object], rules: Sequence[tuple[object, dict[str, object]]]
) -> bool:
    """Returns whether a field of the classifier was added, removed or replaced.

    ``rules`` are its bounds and other rules, each with what it held.
    """
    if any(vars(rule) != values for rule, values in rules):
        return True
    own = {key: value for key, value in source.__dict__.items() if key not in OF_CALLS}
    before = {key: value for key, value in fields.items() if key not in OF_CALLS}
    return own.keys() != before.keys() or any(own[key] is not before[key] for key in own)


@contextmanager
def _global_state(device: torch.device, seed: int) -> Iterator[None]:
    """Seeds the global generators, and puts them and torch's settings back afterwards."""
    strict, threads = torch.are_deterministic_algorithms_enabled(), torch.get_num_threads()
    lenient = torch.is_deterministic_algorithms_warn_only_enabled()
    with seeded_globals(seed, device):
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(strict, warn_only=lenient)
            if torch.get_num_threads() != threads:
                torch.set_num_threads(threads)
