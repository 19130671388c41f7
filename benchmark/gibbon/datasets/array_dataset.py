"""Datasets of arrays, in memory or in a memory-mapped file.

Inputs are uint8, divided by 255, or floating-point numbers in [0, 1]; with declared bounds they are
numbers of any kind in these bounds.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from gibbon.core.errors import DatasetError
from gibbon.core.threat import PIXEL_BOUNDS, Bounds
from gibbon.datasets.base import (
    PIXEL_MAX,
    Batch,
    Dataset,
    DatasetInfo,
    hash_content,
    read_only,
)
from gibbon.datasets.class_order import POSITIONS, check_class_index, order_sentence
from gibbon.datasets.input_range import FEW_CHANNELS, check_dtype, check_range

Layout = Literal["NCHW", "NHWC", "NHW"]

BLOCK_BYTES = 16 << 20  # of an array that is gone through


class HeldDataset(Dataset):
    """A dataset of arrays of inputs and labels.

    Args:
        name: name in tables and messages.
        inputs: uint8, or floating-point in [0, 1]; shape (N, ...).  It is not copied.
        labels: integers, shape (N,), 0 or more; or floating-point numbers that are integers.
        layout: order of the axes, from which inputs become (N, C, H, W); kept if None.
        classes: names of the classes, by label, if known; they are the model's, one for one,
            unless a label exceeds them.
        bounds: lowest and highest value of an input; [0, 1] if None.  With other bounds, uint8 are
            numbers like others, and are not divided.
        notes: sentences for a reader of the results.

    Raises `DatasetError` if it is empty, its parts don't fit together, or an input is outside of
    the bounds.

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
        bounds: Bounds | None = None,
        notes: tuple[str, ...] = (),
    ) -> None:
        labels = check_labels(labels, name=name)
        _check_inputs(inputs, name=name, count=len(labels), declared=bounds)
        self._inputs = inputs if layout is None else _channels_first(inputs, layout, name=name)
        shape = tuple(self._inputs.shape[1:])
        self.info = describe(name, labels, shape, classes=classes, bounds=bounds, notes=notes)
        self._are_bytes = inputs.dtype == np.uint8 and self.info.bounds == PIXEL_BOUNDS
        if not self._are_bytes:
            blocks = [(float(part.min()), float(part.max())) for part in self._blocks()]
            # numpy's minimum and maximum propagate NaN.
            lows, highs = np.array(blocks).T
            low, high = float(lows.min()), float(highs.max())
            check_range(low, high, name=name, shape=shape, declared=bounds)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over dtype, shape, classes, inputs and labels."""
        kind = "uint8" if self._are_bytes else "float32"
        header = repr((kind, self._inputs.shape, self.info.classes))
        return hash_content(header, (part.data for part in self._blocks()), self.info.labels)

    def _blocks(self) -> Iterator[NDArray[Any]]:
        """Yields all inputs in order, a bounded number at a time, as bytes or float32."""
        kind = np.uint8 if self._are_bytes else np.dtype("<f4")
        step = max(1, BLOCK_BYTES // max(1, self._inputs[0].nbytes))
        for start in range(0, len(self._inputs), step):
            yield np.ascontiguousarray(self._inputs[start : start + step], dtype=kind)

    def batch(self, ids: NDArray[np.int64]) -> Batch:
        """Returns the examples with these ids, as float32.

        Raises `DatasetError` if there is no example with such an id.
        """
        self.info.check_ids(ids)
        rows = self._inputs[ids]
        inputs = torch.from_numpy(np.ascontiguousarray(rows, dtype=np.float32))
        if self._are_bytes:
            inputs.div_(PIXEL_MAX)
        else:
            inputs.add_(0.0)  # -0 becomes 0, as in candidates
        taken = torch.from_numpy(ids.astype(np.int64))
        return Batch(taken, inputs, torch.from_numpy(self.info.labels[ids]))


def check_labels(labels: NDArray[Any], *, name: str) -> NDArray[np.int64]:
    """Returns labels as int64, read-only.  Raises `DatasetError` if they are no indices.

    Floating-point numbers that are integers, as pandas makes them of a column with gaps, are taken,
    and booleans, of two classes.
    """
    labels = _as_integers(labels)
    if labels.dtype == np.bool_:  # of two classes
        labels = labels.astype(np.int64)
    if labels.ndim == 2 and labels.shape[1] > 1:
        raise DatasetError(
            f"dataset {name!r}: labels must be one class index an example, shape (N,), got shape "
            f"{labels.shape}: for one-hot or soft labels give the index of the largest"
        )
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        floats = np.issubdtype(labels.dtype, np.floating)
        such = f", such as {_first_broken(labels)}" if floats and labels.size else ""
        if labels.ndim == 2:
            such = ": give labels[:, 0]"
        elif labels.dtype.kind in "OSU":
            such = ": give each the position of its class among the model's, counted from 0"
        raise DatasetError(
            f"dataset {name!r}: labels must be integers of shape (N,), got {labels.dtype} of shape "
            f"{labels.shape}{such}"
        )
    if len(labels) == 0:
        raise DatasetError(f"dataset {name!r} is empty")
    if labels.min() < 0:
        first = int(np.argmax(labels < 0))
        raise DatasetError(
            f"dataset {name!r}: example {first} has label {labels[first]}: labels are positions "
            "among the model's classes, counted from 0"
        )
    check_class_index(int(labels.max()), say=f"dataset {name!r}: a label")
    return read_only(labels.astype(np.int64))


def _first_broken(labels: NDArray[Any]) -> float:
    """Returns the first number that is no integer, or the first number."""
    broken = ~(np.isfinite(labels) & (labels == np.trunc(labels)))
    return float(labels[broken][0] if broken.any() else labels.flat[0])


def _as_integers(labels: NDArray[Any]) -> NDArray[Any]:
    """Returns floating-point labels that are integers as such; any others as they are."""
    if not np.issubdtype(labels.dtype, np.floating) or labels.size == 0:
        return labels
    whole = np.isfinite(labels).all() and (labels == np.trunc(labels)).all()
    return labels.clip(-1, 2.0**53).astype(np.int64) if whole else labels


def describe(
    name: str,
    labels: NDArray[np.int64],
    input_shape: tuple[int, ...],
    *,
    classes: tuple[str, ...],
    bounds: Bounds | None,
    notes: tuple[str, ...],
) -> DatasetInfo:
    """Returns the description of a user's dataset, with inputs in [0, 1] if ``bounds`` is None.

    If ``classes`` has no name for the largest label, classes are numbered and the dataset is
    partial: its labels count among the model's own classes.
    """
    count = int(labels.max()) + 1
    partial = len(classes) < count
    names = tuple(map(str, range(count))) if partial else classes
    order = POSITIONS if partial else order_sentence("labels of the dataset's own classes", names)
    return DatasetInfo(
        name,
        labels,
        names,
        input_shape,
        PIXEL_BOUNDS if bounds is None else bounds,
        partial=partial,
        class_order=order,
        notes=notes,
    )


def _check_inputs(
    inputs: NDArray[Any], *, name: str, count: int, declared: Bounds | None = None
) -> None:
    check_dtype(inputs.dtype, say=f"dataset {name!r}", declared=declared)
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
