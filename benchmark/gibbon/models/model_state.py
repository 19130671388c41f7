"""Copies what a model keeps between calls, and puts it back.

`gibbon.models.snapshot` covers parameters, buffers, mode and hooks.  Models also keep numbers,
lists, tensors and random generators as plain attributes: a counter of calls, a memory of inputs.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gibbon.core.plain_tensors import equal
from gibbon.models.classifier import Classifier
from gibbon.models.snapshot import Snapshot

LARGEST = 4096  # entries of a collection that is copied
BOOKKEEPING = frozenset(vars(nn.Module()))  # of torch: parameters, parts, hooks, mode
GENERATORS = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)
PLAIN = (bool, int, float, complex, str, bytes, tuple, frozenset, type(None))


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
        self._contents: list[Callable[[], object]] = []
        self.has_generators = False
        for part in module.modules():
            own = vars(part)
            held = {name: value for name, value in own.items() if name not in BOOKKEEPING}
            self._names.append((own, held))
            for value in held.values():
                self.has_generators |= generators and isinstance(value, GENERATORS)
                if isinstance(value, GENERATORS) and not generators:
                    continue
                restore = _restorer(value)
                if restore is not None:
                    self._contents.append(restore)

    @torch.no_grad()
    def restore(self) -> None:
        """Puts the state back; parameters only if they have changed."""
        if self._snapshot.difference() is not None:
            self._snapshot.restore()
        for own, held in self._names:
            for name in own.keys() - held.keys() - BOOKKEEPING:
                del own[name]
            own.update(held)
        for restore in self._contents:
            restore()
        for buffer, copy in self._buffers:
            if not equal(buffer, copy):
                buffer.copy_(copy)


def _restorer(value: Any) -> Callable[[], object] | None:
    """Returns a function that puts the content of a value back; None if it can't change."""
    if isinstance(value, PLAIN):
        return None
    if isinstance(value, Tensor):
        copy = value.detach().clone()
        return lambda: None if equal(value, copy) else value.detach().copy_(copy)
    if isinstance(value, np.ndarray):
        array = value.copy()
        return lambda: np.copyto(value, array)
    if isinstance(value, list | deque) and len(value) <= LARGEST:
        items = list(value)
        return lambda: (value.clear(), value.extend(items))
    if isinstance(value, dict | set) and len(value) <= LARGEST:
        entries = value.copy()
        return lambda: (value.clear(), value.update(entries))
    if isinstance(value, torch.Generator):
        state = value.get_state()
        return lambda: value.set_state(state)
    if isinstance(value, np.random.Generator):
        bits = value.bit_generator.state
        return lambda: setattr(value.bit_generator, "state", bits)
    if isinstance(value, np.random.RandomState):
        legacy = value.get_state()
        return lambda: value.set_state(legacy)
    if isinstance(value, random.Random):
        numbers = value.getstate()
        return lambda: value.setstate(numbers)
    return None
