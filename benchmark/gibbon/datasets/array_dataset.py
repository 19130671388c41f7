"""Datasets of arrays, in memory or in a memory-mapped file.

Inputs are uint8, divided by 255, or floating-point numbers in [0, 1].
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from gibbon.core.errors import DatasetError
from gibbon.datasets.base import (
    PIXEL_BOUNDS,
    PIXEL_MAX,
    Batch,
    Dataset,
    DatasetInfo,
    hash_content,
    read_only,
)
from gibbon.datasets.class_map import check_class_index

Layout = Literal["NCHW", "NHWC", "NHW"]

BLOCK_BYTES = 16 << 20  # of an array that is gone through
FEW_CHANNELS = 4  # red, green, blue, and one more
NORMALISED = (
    "attacks work on pixels: leave Normalize out of the transform and give mean and std to the "
    "model"
)
BYTES_AS_FLOATS = "divide them by 255, or give them as uint8"


class HeldDataset(Dataset):
    """A dataset of arrays of inputs and labels.

    Args:
        name: name in tables and messages.
        inputs: uint8, or floating-point in [0, 1]; shape (N, ...).  It is not copied.
        labels: integers, shape (N,), 0 or more.
        layout: order of the axes, from which inputs become (N, C, H, W); kept if None.
        classes: names of the classes, by label, if known; they are the model's, one for one,
            unless a label exceeds them.
        notes: sentences for a reader of the results.

    Raises `DatasetError` if it is empty, its parts don't fit together, or an input is outside
    [0, 1].

    >>> pair = HeldDataset("pair", np.array([[0.0, 0.25], [0.5, 1.0]]), labels=np.array([0, 2]))
    >>> pair.batch(np.array([1])).inputs, pair.classes
    (tensor([[0.5000, 1.0000]]), ('0', '1', '2'))
    """

    def __init__(
        self,
        name: str,
        inputs: NDArray[Any],
        *,
        labels: NDArray[Any],
        layout: Layout | None = None,
        classes: tuple[str, ...] = (),
        notes: tuple[str, ...] = (),
    ) -> None:
        labels = check_labels(labels, name=name)
        _check_inputs(inputs, name=name, count=len(labels))
        self._inputs = inputs if layout is None else _channels_first(inputs, layout, name=name)
        shape = tuple(self._inputs.shape[1:])
        self.info = describe(name, labels, shape, classes=classes, notes=notes)
        if self._inputs.dtype != np.uint8:
            blocks = [(float(part.min()), float(part.max())) for part in self._blocks()]
            # numpy's minimum and maximum propagate NaN.
            lows, highs = np.array(blocks).T
            check_range(float(lows.min()), float(highs.max()), name=name)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over dtype, shape, classes, inputs and labels."""
        kind = "uint8" if self._inputs.dtype == np.uint8 else "float32"
        header = repr((kind, self._inputs.shape, self.info.classes))
        return hash_content(header, (part.data for part in self._blocks()), self.info.labels)

    def _blocks(self) -> Iterator[NDArray[Any]]:
        """Yields all inputs in order, a bounded number at a time, as bytes or float32."""
        kind = np.uint8 if self._inputs.dtype == np.uint8 else np.dtype("<f4")
        step = max(1, BLOCK_BYTES // max(1, self._inputs[0].nbytes))
        for start in range(0, len(self._inputs), step):
            yield np.ascontiguousarray(self._inputs[start : start + step], dtype=kind)

    def batch(self, ids: NDArray[np.int64]) -> Batch:
        """Returns the examples with these ids, as float32 in [0, 1].

        Raises `DatasetError` if there is no example with such an id.
        """
        self.info.check_ids(ids)
        rows = self._inputs[ids]
        inputs = torch.from_numpy(np.ascontiguousarray(rows, dtype=np.float32))
        if self._inputs.dtype == np.uint8:
            inputs.div_(PIXEL_MAX)
        else:
            inputs.add_(0.0)  # -0 becomes 0, as in candidates
        taken = torch.from_numpy(ids.astype(np.int64))
        return Batch(taken, inputs, torch.from_numpy(self.info.labels[ids]))


def check_labels(labels: NDArray[Any], *, name: str) -> NDArray[np.int64]:
    """Returns labels as int64, read-only.  Raises `DatasetError` if they are no indices."""
    if labels.ndim == 2 and labels.shape[1] > 1:
        raise DatasetError(
            f"dataset {name!r}: labels must be one class index an example, shape (N,), got shape "
            f"{labels.shape}: for one-hot or soft labels give the index of the largest"
        )
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise DatasetError(
            f"dataset {name!r}: labels must be integers of shape (N,), got {labels.dtype} of shape "
            f"{labels.shape}"
        )
    if len(labels) == 0:
        raise DatasetError(f"dataset {name!r} is empty")
    if labels.min() < 0:
        first = int(np.argmax(labels < 0))
        raise DatasetError(
            f"dataset {name!r}: example {first} has label {labels[first]}: labels are positions "
            "among the model's classes, counted from 0"
        )
    return read_only(labels.astype(np.int64))


def check_dtype(dtype: np.dtype[Any], *, say: str) -> None:
    """Raises `DatasetError`, which begins with ``say``, if inputs are neither bytes nor floats."""
    if dtype != np.uint8 and not np.issubdtype(dtype, np.floating):
        raise DatasetError(
            f"{say}: inputs must be uint8, of which 255 stands for 1, or floating-point in [0, 1], "
            f"got {dtype}"
        )


def check_range(low: float, high: float, *, name: str) -> None:
    """Raises `DatasetError`, with the range found and a remedy, if inputs are outside [0, 1]."""
    if low >= PIXEL_BOUNDS.low and high <= PIXEL_BOUNDS.high:  # NaN is not in any box
        return
    found = f"dataset {name!r}: inputs must be in [0, 1], found [{low:.4g}, {high:.4g}]"
    if np.isnan(low) or np.isnan(high):
        raise DatasetError(f"dataset {name!r}: inputs must be in [0, 1], found NaN")
    cure = BYTES_AS_FLOATS if low >= 0 and high <= PIXEL_MAX else NORMALISED
    raise DatasetError(f"{found}: {cure}")


def describe(
    name: str,
    labels: NDArray[np.int64],
    input_shape: tuple[int, ...],
    *,
    classes: tuple[str, ...],
    notes: tuple[str, ...],
) -> DatasetInfo:
    """Returns the description of a user's dataset with inputs in [0, 1].

    If ``classes`` has no name for the largest label, classes are numbered and the dataset is
    partial: its labels count among the model's own classes.
    """
    check_class_index(int(labels.max()), say=f"dataset {name!r}: a label")
    count = int(labels.max()) + 1
    partial = len(classes) < count
    names = tuple(map(str, range(count))) if partial else classes
    return DatasetInfo(name, labels, names, input_shape, partial=partial, notes=notes)


def _check_inputs(inputs: NDArray[Any], *, name: str, count: int) -> None:
    check_dtype(inputs.dtype, say=f"dataset {name!r}")
    if inputs.ndim < 2 or 0 in inputs.shape[1:]:
        raise DatasetError(f"dataset {name!r}: inputs must have shape (N, ...), got {inputs.shape}")
    if len(inputs) != count:
        raise DatasetError(f"dataset {name!r} has {len(inputs)} inputs but {count} labels")


def _channels_first(inputs: NDArray[Any], layout: Layout, *, name: str) -> NDArray[Any]:
    if inputs.ndim != len(layout):
        raise DatasetError(
            f"dataset {name!r}: layout {layout} has {len(layout)} axes, the inputs have shape "
            f"{inputs.shape}"
        )
    if layout == "NHW":
        return inputs[:, np.newaxis]
    other: Layout = "NHWC" if layout == "NCHW" else "NCHW"
    channels, others = inputs.shape[layout.index("C")], inputs.shape[other.index("C")]
    if channels > FEW_CHANNELS >= others:
        raise DatasetError(
            f"dataset {name!r}: inputs of shape {inputs.shape} would have {channels} channels in "
            f"layout {layout}: is it {other}?"
        )
    return inputs if layout == "NCHW" else inputs.transpose(0, 3, 1, 2)
