"""Copies the state that a model keeps between calls, and restores it.

`gibbon.models.snapshot` covers parameters, buffers, mode and hooks.  Models also keep numbers,
lists, tensors and random generators as plain attributes: a counter of calls, a memory of inputs.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from gibbon.core.plain_tensors import equal
from gibbon.models.classifier import Classifier
from gibbon.models.held_values import HeldValue, held
from gibbon.models.snapshot import Snapshot

BOOKKEEPING = frozenset(vars(nn.Module()))  # of torch: parameters, parts, hooks, mode
GENERATORS = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)


class ModelState:
    """A copy of the state of a model under evaluation.

    Args:
        model: the model, or its module.
        generators: whether the random generators that it keeps are part of the state.

    Attributes:
        has_generators: whether there are any that are.

    >>> net = nn.Linear(2, 2)
    >>> net.calls = 0
    >>> classifier = Classifier(net, classes=2, input_shape=(2,))
    >>> with classifier.evaluating():
    ...     state = ModelState(classifier)
    ...     net.calls += 1
    ...     state.restore()
    >>> net.calls
    0
    """

    def __init__(self, model: Classifier | nn.Module, *, generators: bool = True) -> None:
        evaluated = model.snapshot if isinstance(model, Classifier) else None
        module = model.module if isinstance(model, Classifier) else model
        self._snapshot = evaluated or Snapshot(module)
        self._buffers = [(each, each.clone()) for each in module.buffers()]
        self._names: list[tuple[dict[str, Any], dict[str, Any]]] = []
        self._values: list[HeldValue] = []
        self._generators: list[Callable[[], object]] = []
        for part in module.modules():
            own = vars(part)
            names = {name: value for name, value in own.items() if name not in BOOKKEEPING}
            self._names.append((own, names))
            for name, value in names.items():
                if isinstance(value, GENERATORS):
                    self._generators += [_restorer(value)] * generators
                else:
                    self._values.append(held((id(part), name), own, name, value, large=True))
        self.has_generators = bool(self._generators)

    @torch.no_grad()
    def restore(self) -> None:
        """Puts the state back; parameters only if they have changed."""
        if self._snapshot.difference() is not None:
            self._snapshot.restore()
        for own, names in self._names:
            for name in own.keys() - names.keys() - BOOKKEEPING:
                del own[name]
            own.update(names)
        for each in self._values:
            each.restore()
        for restore in self._generators:
            restore()
        for buffer, copy in self._buffers:
            if not equal(buffer, copy):
                buffer.copy_(copy)


def _restorer(value: Any) -> Callable[[], object]:
    """Returns a function that puts a random generator back into its present state."""
    if isinstance(value, torch.Generator):
        state = value.get_state()
        return lambda: value.set_state(state)
    if isinstance(value, np.random.Generator):
        bits = value.bit_generator.state
        return lambda: setattr(value.bit_generator, "state", bits)
    if isinstance(value, np.random.RandomState):
        legacy = value.get_state()
        return lambda: value.set_state(legacy)
    numbers = value.getstate()
    return lambda: value.setstate(numbers)
