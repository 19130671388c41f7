"""The guard around an attack: copies of inputs, seeded generators, and a check of the model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from gibbon.attacks.toolkit.gradients import check_finite_gradients
from gibbon.core.errors import AttackError
from gibbon.core.rng import seeded_globals
from gibbon.datasets.base import Batch
from gibbon.models.classifier import Classifier, Watch
from gibbon.models.snapshot import Snapshot, equal


@dataclass(frozen=True)
class Guarded:
    """A batch for an attack, whose inputs are a copy, and the record of the model's calls."""

    batch: Batch
    watch: Watch


@contextmanager
def guarding(
    source: Classifier, batch: Batch, *, seed: int = 0, room: int = 0
) -> Iterator[Guarded]:
    """Lends an attack a copy of the inputs, and restores the model and global state afterwards.

    Our own attacks draw from streams.  Attacks of other libraries may draw from the generators of
    torch, numpy or random, which start from ``seed``.  Generators, torch's global settings, the
    model and the classifier are put back, also after an exception.  ``room`` is the size of a full
    batch, if this one is smaller.

    Raises `AttackError` if the attack changed its inputs, the model or the classifier, and
    `OutputError` if an input gradient was NaN: ``sign(NaN)`` is 0 in torch, so that the attack
    would have stayed at its starting point and shown nothing.
    """
    snapshot = source.snapshot or Snapshot(source.module)
    fields = dict(source.__dict__)
    given = Batch(batch.ids, batch.inputs.clone(), batch.labels)
    watching = source.watching(given.inputs, room=room)
    with _global_state(batch.inputs.device, seed), watching as watch:
        try:
            yield Guarded(given, watch)
        finally:
            difference = snapshot.difference()
            if difference is not None:
                snapshot.restore()
            elif _changed(source, fields):
                difference = "changed the classifier"
            source.__dict__.clear()
            source.__dict__.update(fields)
    if difference is not None:
        raise AttackError(f"the attack {difference}")
    if given.inputs._version != watch.version or not equal(given.inputs, batch.inputs):
        raise AttackError("the attack changed its inputs in place")
    check_finite_gradients(watch.gradients)


def _changed(source: Classifier, fields: dict[str, object]) -> bool:
    """Returns whether a field of the classifier was added, removed or replaced."""
    own = {key: value for key, value in source.__dict__.items() if key != "_watch"}
    before = {key: value for key, value in fields.items() if key != "_watch"}
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
