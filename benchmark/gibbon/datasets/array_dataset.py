"""Inputs and labels in arrays: in memory, or in a file that is mapped into it.

Inputs are bytes, of which 255 stands for 1, or floating-point numbers in [0, 1].
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from gibbon.core.errors import DatasetError
from gibbon.core.threat import Bounds
from gibbon.datasets.base import PIXEL_BOUNDS, PIXEL_MAX, Batch, Dataset
from gibbon.datasets.prefetch import Ids, check_ids

Layout = Literal["NCHW", "NHWC", "NHW"]

BLOCK_BYTES = 16 << 20  # of an array that is gone through
FEW_CHANNELS = 4  # red, green, blue, and one more
NORMALISED = (
    "attacks work on pixels: leave Normalize out of the transform and give mean and std to the "
    "model"
)
BYTES_AS_FLOATS = "divide them by 255, or give them as uint8"


class HeldDataset(Dataset):
    """Inputs and labels in arrays.

    Args:
        name: what the tables say.
        inputs: uint8, or floating-point in [0, 1]; shape (N, ...).  It is not copied.
        labels: integers, shape (N,), 0 or more.
        layout: the order of the axes: inputs come out as (N, C, H, W).  As they are if None.
        classes: the classes' names, by label, if they are known; they are the model's, one for one,
            unless a label exceeds them.
        notes: what a reader of the results should know, as sentences.

    Raises `DatasetError` where it is empty, its parts don't fit together or an input is outside
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
        self._name = name
        self._notes = notes
        self._labels = check_labels(labels, name=name)
        _check_inputs(inputs, name=name, count=len(self._labels))
        self._inputs = inputs if layout is None else _channels_first(inputs, layout, name=name)
        self._classes = name_classes(classes, self._labels)
        self._partial = self._classes != classes
        if self._inputs.dtype != np.uint8:
            blocks = [(float(part.min()), float(part.max())) for part in self._blocks()]
            # A NaN goes through numpy's minimum and maximum.
            lows, highs = np.array(blocks).T
            check_range(float(lows.min()), float(highs.max()), name=name)

    @property
    def name(self) -> str:
        """What the tables say."""
        return self._name

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes' names, by label."""
        return self._classes

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input."""
        return tuple(self._inputs.shape[1:])

    @property
    def bounds(self) -> Bounds:
        """[0, 1]."""
        return PIXEL_BOUNDS

    @property
    def labels(self) -> NDArray[np.int64]:
        """The label of every example, shape (N,), read-only."""
        return self._labels

    @property
    def partial(self) -> bool:
        """Whether labels count among the model's own classes, of which no names are known."""
        return self._partial

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the results should know of how the data was read."""
        return self._notes

    @property
    def digest(self) -> str:
        """SHA-256 over shape, kind, classes, inputs and labels."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        kind = "uint8" if self._inputs.dtype == np.uint8 else "float32"
        content = hashlib.sha256(repr((kind, self._inputs.shape, self._classes)).encode())
        for part in self._blocks():
            content.update(part.data)
        content.update(self._labels.astype("<i8").data)
        return content.hexdigest()

    def _blocks(self) -> Iterator[NDArray[Any]]:
        """Yields all inputs in order, a bounded number at a time, as bytes or float32."""
        kind = np.uint8 if self._inputs.dtype == np.uint8 else np.dtype("<f4")
        step = max(1, BLOCK_BYTES // max(1, self._inputs[0].nbytes))
        for start in range(0, len(self._inputs), step):
            yield np.ascontiguousarray(self._inputs[start : start + step], dtype=kind)

    def batch(self, ids: Ids) -> Batch:
        """Returns the examples with these ids, as float32 in [0, 1].

        Raises `DatasetError` where there is no example with such an id.
        """
        check_ids(ids, name=self._name, count=len(self))
        rows = self._inputs[ids]
        inputs = torch.from_numpy(np.ascontiguousarray(rows, dtype=np.float32))
        if self._inputs.dtype == np.uint8:
            inputs.div_(PIXEL_MAX)
        taken = torch.from_numpy(ids.astype(np.int64))
        return Batch(taken, inputs, torch.from_numpy(self._labels[ids]))


def check_labels(labels: NDArray[Any], *, name: str) -> NDArray[np.int64]:
    """Returns labels as int64, read-only.  Raises `DatasetError` where they are no indices."""
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
    narrow = labels.astype(np.int64)
    narrow.flags.writeable = False
    return narrow


def check_range(low: float, high: float, *, name: str) -> None:
    """Raises `DatasetError` where inputs are outside [0, 1]: what was found, and the cure."""
    if low >= PIXEL_BOUNDS.low and high <= PIXEL_BOUNDS.high:  # NaN is not in any box
        return
    found = f"dataset {name!r}: inputs must be in [0, 1], found [{low:.4g}, {high:.4g}]"
    if np.isnan(low) or np.isnan(high):
        raise DatasetError(f"dataset {name!r}: inputs must be in [0, 1], found NaN")
    cure = BYTES_AS_FLOATS if low >= 0 and high <= PIXEL_MAX else NORMALISED
    raise DatasetError(f"{found}: {cure}")


def name_classes(names: tuple[str, ...], labels: NDArray[np.int64]) -> tuple[str, ...]:
    """Returns names for all labels up to the largest: those given, or their numbers."""
    count = int(labels.max()) + 1
    return names if len(names) >= count else tuple(map(str, range(count)))


def _check_inputs(inputs: NDArray[Any], *, name: str, count: int) -> None:
    if inputs.dtype != np.uint8 and not np.issubdtype(inputs.dtype, np.floating):
        raise DatasetError(
            f"dataset {name!r}: inputs must be uint8, of which 255 stands for 1, or floating-point "
            f"in [0, 1], got {inputs.dtype}"
        )
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
