"""Inputs that belong to no class, from any source: labels are neither read nor needed.

The label of every example is `NO_LABEL`, so that nothing that counts errors can take them for
examples of a class.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from gibbon.datasets.base import Batch, Dataset, read_only

NO_LABEL = -1


def no_labels(count: int) -> NDArray[np.int64]:
    """Returns the labels of inputs without a class: `NO_LABEL` each."""
    return read_only(np.full(count, NO_LABEL, dtype=np.int64))


class WithoutClasses(Dataset):
    """The inputs of another dataset, without its labels and classes.

    Args:
        inner: the dataset, whose example ids it keeps.

    >>> from gibbon.datasets.array_dataset import HeldDataset
    >>> inner = HeldDataset("pair", np.array([[0.0], [0.5]]), labels=np.array([0, 1]))
    >>> outer = WithoutClasses(inner)
    >>> outer.labels.tolist(), outer.classes
    ([-1, -1], ())
    """

    def __init__(self, inner: Dataset) -> None:
        self._inner = inner
        self.info = replace(
            inner.info,
            labels=no_labels(len(inner)),
            classes=(),
            partial=True,
            class_order="",
            no_class=True,
        )

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the digest of the dataset."""
        return hashlib.sha256(f"no class: {self._inner.digest}".encode()).hexdigest()

    def batch(self, ids: NDArray[np.int64]) -> Batch:
        """Returns the inputs with these ids, in this order."""
        return _without_labels(self._inner.batch(ids))

    def batches(self, chunks: Sequence[NDArray[np.int64]]) -> Generator[Batch, None, None]:
        """Yields one batch for each list of ids."""
        inner = self._inner.batches(chunks)
        try:
            for batch in inner:
                yield _without_labels(batch)
        finally:
            if isinstance(inner, Generator):
                inner.close()

    def unreadable(
        self, ids: NDArray[np.int64], *, progress: Callable[[int], None]
    ) -> Mapping[int, str]:
        """Returns the examples among these that can't be read: file and reason, by id."""
        return self._inner.unreadable(ids, progress=progress)


def _without_labels(batch: Batch) -> Batch:
    return replace(batch, labels=torch.full_like(batch.labels, NO_LABEL))
