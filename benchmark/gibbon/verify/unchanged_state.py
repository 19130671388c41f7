"""Restores the global state that calls of a model of unknown code leave changed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from gibbon.core.errors import OutputError
from gibbon.core.global_state import GlobalState
from gibbon.models.classifier import Classifier
from gibbon.verify.others_values import restore_target, unchanged_values

LEFT_LATER = (
    "the model left global state changed ({}), which it did not do when it was loaded, and which "
    "would change the numbers of other models; it was put back: run it with --isolate"
)


@contextmanager
def unchanged_state(model: Classifier) -> Iterator[None]:
    """Restores global state after the calls of a model in a ``with`` block.

    Raises `OutputError` if the model replaced functions, hooked all modules or changed what the
    code of others reads.
    """
    restore_target(model)
    if not model.foreign:
        yield
        return
    state = GlobalState.now()
    try:
        with unchanged_values(model):
            yield
    finally:
        changes = state.put_back()
    if changes.code:
        raise OutputError(LEFT_LATER.format(", ".join(sorted(changes.code))))
