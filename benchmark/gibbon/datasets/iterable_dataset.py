"""Iterable datasets: examples without random access, stored in a temporary file as they are read.

The file has no name, so that nothing is left of it after a crash.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gibbon.core.errors import DatasetError
from gibbon.core.threat import Bounds
from gibbon.datasets.array_dataset import HeldDataset

ExamplePair = tuple[NDArray[Any], int]


def store_stream(
    name: str,
    examples: Iterable[ExamplePair],
    *,
    classes: tuple[str, ...] = (),
    bounds: Bounds | None = None,
    notes: tuple[str, ...] = (),
) -> HeldDataset:
    """Returns a dataset of these examples, in the order in which they come.

    Args:
        name: name in tables and messages.
        examples: pairs of an input, uint8 or float32, and a label.
        classes: names of the classes, by label, if known.
        bounds: lowest and highest value of an input; [0, 1] if None.
        notes: sentences for a reader of the results.

    Raises `DatasetError` if there are none, or they differ in shape or dtype.
    """
    labels: list[int] = []
    first: NDArray[Any] | None = None
    with tempfile.TemporaryFile(prefix="gibbon-") as file:
        for content, label in examples:
            first = content if first is None else first
            if (content.shape, content.dtype) != (first.shape, first.dtype):
                raise DatasetError(
                    f"dataset {name!r}: inputs must be alike: example 0 is {first.dtype} of shape "
                    f"{first.shape}, example {len(labels)} {content.dtype} of shape {content.shape}"
                )
            file.write(content.data)
            labels.append(label)
        if first is None:
            raise DatasetError(f"dataset {name!r} is empty")
        file.flush()
        shape = (len(labels), *first.shape)
        inputs = np.memmap(file, dtype=first.dtype, mode="r", shape=shape)
    numbers = np.array(labels, dtype=np.int64)
    return HeldDataset(name, inputs, labels=numbers, classes=classes, bounds=bounds, notes=notes)
