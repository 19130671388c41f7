"""Examples that come one after the other and can't be asked for by position: read once, onto disk.

They are kept in a temporary file that has no name, so that nothing is left of it whatever happens.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from gibbon.core.errors import DatasetError
from gibbon.datasets.array_dataset import HeldDataset

Example = tuple[NDArray[Any], int]


def spool(
    name: str,
    examples: Iterable[Example],
    *,
    classes: tuple[str, ...] = (),
    notes: tuple[str, ...] = (),
) -> HeldDataset:
    """Returns a dataset of these examples, in the order in which they come.

    Args:
        name: what the tables say.
        examples: an input, uint8 or float32, and a label each.
        classes: the classes' names, by label, if they are known.
        notes: what a reader of the results should know, as sentences.

    Raises `DatasetError` where there is none, and where they don't go together.
    """
    labels: list[int] = []
    with tempfile.TemporaryFile(prefix="gibbon-") as file:
        first = _write(name, examples, file, labels)
        if first is None:
            raise DatasetError(f"dataset {name!r} is empty")
        file.flush()
        shape = (len(labels), *first.shape)
        inputs = np.memmap(file, dtype=first.dtype, mode="r", shape=shape)
    numbers = np.array(labels, dtype=np.int64)
    return HeldDataset(name, inputs, labels=numbers, classes=classes, notes=notes)


def _write(
    name: str, examples: Iterable[Example], file: IO[bytes], labels: list[int]
) -> NDArray[Any] | None:
    first: NDArray[Any] | None = None
    for content, label in examples:
        first = content if first is None else first
        if (content.shape, content.dtype) != (first.shape, first.dtype):
            raise DatasetError(
                f"dataset {name!r}: inputs must be alike: example 0 is {first.dtype} of shape "
                f"{first.shape}, example {len(labels)} {content.dtype} of shape {content.shape}"
            )
        file.write(content.data)
        labels.append(label)
    return first
