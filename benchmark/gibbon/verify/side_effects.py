"""Finds the state that passes of a model alone change, so that no attack is blamed for it."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from gibbon.core.global_state import Changes, GlobalState
from gibbon.core.plain_tensors import equal
from gibbon.core.rng import seeded_globals
from gibbon.datasets.base import Batch
from gibbon.models.classifier import Classifier
from gibbon.models.held_values import Place
from gibbon.models.snapshot import Snapshot

SEED = 0


@dataclass(frozen=True)
class SideEffects:
    """The changes that passes of a model alone make.

    Args:
        places: parameters, buffers and attributes.
        values: what its code reads from elsewhere.
        changes_input: whether it writes into its input.
        changes: global state.
    """

    places: frozenset[Place]
    values: frozenset[Place]
    changes_input: bool
    changes: Changes


def side_effects_of(source: Classifier, batch: Batch, snapshot: Snapshot) -> SideEffects:
    """Returns the changes that a model makes if it is run alone on copies of a batch.

    It is run without and with gradients, on the whole batch and on a part of it.  Everything is put
    back, and the passes are not counted.  ``snapshot`` is of the model's state.
    """
    state, original = GlobalState.now(), batch.inputs
    places, values, changes_input = frozenset[Place](), frozenset[Place](), False
    code: set[str] = set()
    with source.uncounted(), source.counting_only(), seeded_globals(SEED, original.device):
        for count in (len(original), max(1, len(original) // 2)):
            for gradients in (False, True):
                leaf = original[:count].detach().clone().requires_grad_(gradients)
                given = leaf.clone() if gradients else leaf
                try:
                    with torch.set_grad_enabled(gradients):
                        source.call_on(given)
                except Exception:  # noqa: BLE001, S112  that it fails shows in its own cells
                    continue
                finally:
                    code |= set(state.put_back().code)
                    places |= snapshot.changed_places()
                    values |= frozenset() if source.reached is None else source.reached.restore()
                    if given._version > 0 or not equal(given.detach(), original[:count]):
                        changes_input = True
    if places:
        snapshot.restore()
    return SideEffects(places, values, changes_input, Changes(code=tuple(code)))
