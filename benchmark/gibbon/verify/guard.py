"""The guard around an attack: copies of inputs, seeded generators, and a check of the model.

What an attack left changed fails its cell.  A model may change the same things in a pass of its
own: then the model is run alone on a copy of the inputs, and what that changes is not the attack's
fault (`gibbon.verify.side_effects`).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace

import torch

from gibbon.attacks.base import Attack, is_ours
from gibbon.attacks.toolkit.gradients import check_finite_gradients
from gibbon.core.errors import AttackError, OutputError
from gibbon.core.global_state import Changes, GlobalState
from gibbon.core.plain_tensors import equal
from gibbon.core.rng import seeded_globals
from gibbon.datasets.base import Batch
from gibbon.models.classifier import CHANGED_INPUT, Classifier, Watch
from gibbon.models.held_values import Place
from gibbon.models.reached_values import leave_own
from gibbon.models.snapshot import CHANGED_ATTRIBUTES, CHANGED_TENSORS, Snapshot
from gibbon.verify.others_values import OTHERS, ChangedValues, noting_values
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
    classifier = _ClassifierFields.of(source)
    trusted = attack is not None and is_ours(attack)
    known = trusted and not source.foreign
    given = Batch(batch.ids.clone(), batch.inputs.clone(), batch.labels.clone())
    original = None if trusted else batch.inputs
    watching = source.watching(given.inputs, room=room, original=original)
    state = None if known else GlobalState.now(ours=not trusted)
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
            stays = source.is_watched_by(watch) and not classifier.changed()
            if difference is None and not stays:
                difference = CHANGED_CLASSIFIER
            classifier.put_back()
            if failed and difference == CHANGED_CLASSIFIER:  # which is why our own code failed
                raise AttackError(f"the attack {difference}")
    changed_input = given.inputs._version != watch.version or not (
        known or equal(given.inputs, batch.inputs)
    )
    left = _Left(difference, places, changed_input, changes, touched)
    if left.anything:
        left = left.without_the_models_own(source, batch, snapshot)
    left.check(source, trusted=trusted)
    if state is not None and not trusted and (running := state.new_threads()):
        warnings.warn(
            f"{LEFT_THREADS} ({', '.join(running)}), which may change other numbers: {ISOLATE}",
            RuntimeWarning,
            stacklevel=2,
        )
    check_finite_gradients(watch.gradients)


@dataclass(frozen=True)
class _Left:
    """The changes that an attack left behind; they are put back already.

    Args:
        difference: what it did to the model or the classifier; None for nothing.
        places: the places of the model's tensors and values that changed.
        changed_input: whether its inputs changed.
        changes: what else it changed in the process.
        touched: values that other code reads.
        others: their places, but for those that the model's own calls change.
    """

    difference: str | None
    places: frozenset[Place]
    changed_input: bool
    changes: Changes
    touched: ChangedValues
    others: frozenset[Place] = frozenset()

    @property
    def anything(self) -> bool:
        """Whether anything changed that may be the model's own doing."""
        own = self.difference is not None or self.changed_input
        return own or bool(self.changes.code or self.touched.places)

    def without_the_models_own(self, source: Classifier, batch: Batch, snapshot: Snapshot) -> _Left:
        """Returns what is left without what a call of the model alone changes, too.

        Raises `OutputError` if the model changes its inputs.
        """
        own, difference = side_effects_of(source, batch, snapshot), self.difference
        if difference in (CHANGED_TENSORS, CHANGED_ATTRIBUTES) and self.places <= own.places:
            source.own_places |= self.places
            difference = None
        if self.changed_input and own.changes_input:
            raise OutputError(CHANGED_INPUT)
        code = tuple(set(self.changes.code) - set(own.changes.code))
        if source.reached is not None:
            leave_own(source.reached, own.values)
        return replace(
            self,
            difference=difference,
            changes=self.changes._replace(code=code),
            others=frozenset(self.touched.places) - own.values,
        )

    def check(self, source: Classifier, *, trusted: bool) -> None:
        """Raises `AttackError` if the attack changed anything, `OutputError` if the model did."""
        if self.difference is not None:
            raise AttackError(f"the attack {self.difference}")
        if self.touched.patched:
            raise AttackError(PATCHED_ANOTHER)
        if self.changed_input:
            raise AttackError("the attack changed its inputs in place")
        others = self.others
        if trusted and source.reached is not None:
            leave_own(source.reached, others & source.reached.places)
            others -= source.reached.places
        party, kind = ("model", OutputError) if trusted else ("attack", AttackError)
        if others:
            raise kind(OTHERS.format(party, self.touched.text(others)))
        if not self.changes.code:
            return
        names = ", ".join(sorted(self.changes.code))
        if trusted:
            raise OutputError(LEFT_LATER.format(names))
        raise AttackError(
            f"the attack left global state changed ({names}), which would change the numbers of "
            f"other cells; it was put back: {ISOLATE}"
        )


@dataclass(frozen=True)
class _ClassifierFields:
    """The fields of a classifier and of its rules, such as its bounds, before an attack."""

    source: Classifier
    fields: dict[str, object]
    rules: tuple[tuple[object, dict[str, object]], ...]

    @classmethod
    def of(cls, source: Classifier) -> _ClassifierFields:
        rules = (source.bounds, source.outputs, source.draws)
        return cls(source, dict(source.__dict__), tuple((each, dict(vars(each))) for each in rules))

    def changed(self) -> bool:
        """Returns whether a field was added, removed or replaced."""
        if any(vars(rule) != values for rule, values in self.rules):
            return True
        own = {key: each for key, each in self.source.__dict__.items() if key not in OF_CALLS}
        before = {key: each for key, each in self.fields.items() if key not in OF_CALLS}
        return own.keys() != before.keys() or any(own[key] is not before[key] for key in own)

    def put_back(self) -> None:
        """Restores all fields."""
        self.source.__dict__.clear()
        self.source.__dict__.update(self.fields)
        for rule, values in self.rules:
            vars(rule).clear()
            vars(rule).update(values)


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
