"""Keeps models in memory: all of them if they fit, otherwise the most recently used ones.

A `Handle` is a classifier that can be released and built again.  The `ModelPool` keeps models in
evaluation mode on the device, and releases the least recently used ones if another model needs the
memory.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from contextlib import AbstractContextManager

import torch

from gibbon.models.classifier import Classifier
from gibbon.models.memory import SHARE, free_memory, give_back, is_shortage

# Tensors of a model under evaluation are held twice: the copy shows whether they were changed.
COPIES = 2


class Handle:
    """A classifier, or the function that builds it again.

    Args:
        classifier: the classifier.
        size: bytes of its tensors on the device while it is evaluated.
        rebuild: builds it again; if None, it is never released.
    """

    def __init__(
        self, classifier: Classifier, *, size: int, rebuild: Callable[[], Classifier] | None
    ) -> None:
        self.size = size
        self._classifier: Classifier | None = classifier
        self._rebuild = rebuild

    @property
    def classifier(self) -> Classifier:
        """The classifier, built again if it was released, which may raise any error."""
        if self._classifier is None:
            if self._rebuild is None:
                raise RuntimeError("a classifier that can't be built again was released")
            self._classifier = self._rebuild()
        return self._classifier

    def changed(self, change: Callable[[Classifier], Classifier]) -> Handle:
        """Returns the handle of a classifier that is changed, also each time it is built again."""
        rebuild = self._rebuild
        return Handle(
            change(self.classifier),
            size=self.size,
            rebuild=None if rebuild is None else lambda: change(rebuild()),
        )

    @property
    def rebuilds(self) -> bool:
        """Whether the model can be released."""
        return self._rebuild is not None

    def release(self) -> None:
        """Releases the classifier, if it can be built again."""
        if self._rebuild is not None:
            self._classifier = None


class ModelPool:
    """Keeps a limited number of models in memory.

    Args:
        device: the device that they are evaluated on.
        places: the largest number of models; as many as fit if None.
        sharing: number of processes that share the memory.
    """

    def __init__(self, device: torch.device, *, places: int | None, sharing: int = 1) -> None:
        self.device = device
        self._places = places
        free = free_memory(device) if places is None else None
        self._room = None if free is None else int(free * SHARE / sharing)
        # In the order of their last use; some are in memory but not on the device.
        self._present: list[Handle] = []
        # Those on the device, in the order in which their evaluation began.
        self._on: dict[Handle, AbstractContextManager[Classifier]] = {}

    def fits(self, handles: Iterable[Handle]) -> bool:
        """Returns whether these models can be in memory at once."""
        wanted = set(handles)
        if len(wanted) <= 1:
            return True
        if self._places is not None:
            return len(wanted) <= self._places
        return self._room is None or sum(each.size for each in wanted) <= self._room

    def reserve(self) -> None:
        """Releases models, to make room for one that is about to be built."""
        while self._places is not None and len(self._present) >= self._places:
            self._drop(self._present[0])

    def add(self, handle: Handle) -> None:
        """Adds a model that was built, and releases others if it needs their memory."""
        if handle.rebuilds:
            self._make_room(handle, keep=(handle,))
            self._present.append(handle)

    def load(self, handles: Iterable[Handle]) -> None:
        """Begins the evaluation of these models, and releases others if they need their memory."""
        wanted = tuple(dict.fromkeys(handles))
        for handle in wanted:
            if handle not in self._on:
                self._make_room(handle, keep=wanted)
                self._enter(handle, keep=wanted)
            self._used(handle)

    def has_loaded(self, handle: Handle) -> bool:
        """Returns whether a model is on the device now."""
        return handle in self._on

    def close(self) -> None:
        """Puts every model back as it was before it was evaluated."""
        for handle in reversed(list(self._on)):
            self._leave(handle)

    def __enter__(self) -> ModelPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _enter(self, handle: Handle, *, keep: Collection[Handle]) -> None:
        if not self._try_enter(handle, last=not self._idle(keep)):
            for other in self._idle(keep):
                self._drop(other)
            give_back(self.device)
            self._try_enter(handle, last=True)

    def _try_enter(self, handle: Handle, *, last: bool) -> bool:
        try:
            evaluated = handle.classifier.evaluating(self.device)
            evaluated.__enter__()
        except Exception as error:
            if last or not is_shortage(error):
                raise
            return False
        self._on[handle] = evaluated
        return True

    def _used(self, handle: Handle) -> None:
        if handle in self._present:
            self._present.remove(handle)
        self._present.append(handle)

    def _make_room(self, handle: Handle, *, keep: Collection[Handle]) -> None:
        while not self.fits([*self._present, handle]):
            idle = self._idle(keep)
            if not idle:
                return
            self._drop(idle[0])

    def _idle(self, keep: Collection[Handle]) -> list[Handle]:
        """Returns the models that can be released, the least recently used first."""
        return [each for each in self._present if not set(self._entangled(each)) & set(keep)]

    def _entangled(self, handle: Handle) -> list[Handle]:
        """Returns a model and the later ones that share a part of it: these must end before it."""
        if handle not in self._on:
            return [handle]
        entered = list(self._on)
        parts = _parts(handle)
        later = entered[entered.index(handle) + 1 :]
        return [handle, *(each for each in later if parts & _parts(each))]

    def _drop(self, handle: Handle) -> None:
        for other in reversed(self._entangled(handle)):
            if other in self._on:
                self._leave(other)
            other.release()
            self._present.remove(other)

    def _leave(self, handle: Handle) -> None:
        self._on.pop(handle).__exit__(None, None, None)


def _parts(handle: Handle) -> set[int]:
    return {id(each) for each in handle.classifier.module.modules()}
