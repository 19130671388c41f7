"""What a dataset is to us: examples with ids that never change, given out by batches.

An example id is the example's position in its dataset's split.  It stays the same whatever the
order, the batch size, the sharding or the limit.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gibbon.core.errors import DatasetError, SpecError
from gibbon.core.rng import ExampleStreams, derive_key
from gibbon.core.threat import Bounds

PIXEL_MAX = 255.0  # of an 8-bit picture
PIXEL_BOUNDS = Bounds(0.0, 1.0)
SAMPLE_KEY = derive_key("gibbon", "the one fixed shuffle")


@dataclass(frozen=True)
class Batch:
    """A few examples.

    Args:
        ids: int64, shape (N,): example ids.
        inputs: float32, shape (N, *input_shape), in the dataset's bounds.
        labels: int64, shape (N,).
    """

    ids: Tensor
    inputs: Tensor
    labels: Tensor

    def to(self, device: torch.device) -> Batch:
        """Returns the same batch on another device."""
        return Batch(self.ids.to(device), self.inputs.to(device), self.labels.to(device))


class Dataset(ABC):
    """A split of labelled examples."""

    @property
    @abstractmethod
    def name(self) -> str:
        """The name that the dataset is registered under."""

    @property
    @abstractmethod
    def classes(self) -> tuple[str, ...]:
        """The classes' names, by label."""

    @property
    @abstractmethod
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input: (channels, height, width) for pictures."""

    @property
    @abstractmethod
    def bounds(self) -> Bounds:
        """The box that the inputs live in."""

    @property
    @abstractmethod
    def labels(self) -> NDArray[np.int64]:
        """The label of every example, shape (N,), by example id."""

    @property
    @abstractmethod
    def digest(self) -> str:
        """A digest of the content: inputs, labels and their order."""

    @property
    def partial(self) -> bool:
        """Whether labels count among the model's own classes, of which some may have no example.

        Otherwise the dataset's classes are the model's, one for one.
        """
        return False

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the results should know of how the data was read, as sentences."""
        return ()

    @abstractmethod
    def batch(self, ids: NDArray[np.int64]) -> Batch:
        """Returns the examples with these ids, in this order."""

    def batches(self, chunks: Sequence[NDArray[np.int64]]) -> Generator[Batch, None, None]:
        """Yields one batch for each list of ids; a dataset that reads files works ahead.

        Closing the generator stops what works ahead.
        """
        for chunk in chunks:
            yield self.batch(chunk)

    def unreadable(
        self, ids: NDArray[np.int64], *, told: Callable[[int], None]
    ) -> Mapping[int, str]:
        """Returns which of these examples can't be read, by id, and why: file and reason.

        ``told`` is called with the number of examples that were looked at since the last call.
        """
        told(len(ids))
        return {}

    def __len__(self) -> int:
        return len(self.labels)


class ArrayDataset(Dataset):
    """A dataset that is small enough to sit in memory as bytes.

    Args:
        name: registered name.
        pixels: uint8, shape (N, *input_shape), (N, C, H, W) for pictures; inputs are
            ``pixels / 255``, float32 in [0, 1].
        targets: integers, shape (N,), in ``range(len(classes))``.
        classes: the classes' names, by label.
        bounds: the box that inputs live in; holds [0, 1].

    Raises `DatasetError` where it is empty or its parts don't fit together.

    >>> pair = ArrayDataset(
    ...     name="pair",
    ...     pixels=np.array([[0, 51], [102, 255]], dtype=np.uint8),
    ...     targets=np.array([0, 1]),
    ...     classes=("dark", "light"),
    ... )
    >>> pair.batch(np.array([1])).inputs
    tensor([[0.4000, 1.0000]])
    """

    def __init__(
        self,
        name: str,
        pixels: NDArray[np.uint8],
        *,
        targets: NDArray[np.integer[Any]],
        classes: tuple[str, ...],
        bounds: Bounds = PIXEL_BOUNDS,
    ) -> None:
        _check_parts(name, pixels, targets=targets, classes=classes)
        if bounds.low > PIXEL_BOUNDS.low or bounds.high < PIXEL_BOUNDS.high:
            raise DatasetError(
                f"dataset {name!r} has inputs in [0, 1] but bounds "
                f"[{bounds.low:g}, {bounds.high:g}]"
            )
        self._name = name
        self._pixels = _read_only(pixels)
        self._labels = _read_only(targets.astype(np.int64, copy=False))
        self._classes = tuple(classes)
        self._bounds = bounds

    @property
    def name(self) -> str:
        """The name that the dataset is registered under."""
        return self._name

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes' names, by label."""
        return self._classes

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input: (channels, height, width) for pictures."""
        return tuple(self._pixels.shape[1:])

    @property
    def bounds(self) -> Bounds:
        """The box that the inputs live in."""
        return self._bounds

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """All inputs times 255, uint8, shape (N, *input_shape), read-only."""
        return self._pixels

    @property
    def labels(self) -> NDArray[np.int64]:
        """The label of every example, shape (N,), read-only."""
        return self._labels

    @property
    def targets(self) -> NDArray[np.int64]:
        """The same as ``labels``."""
        return self._labels

    @property
    def digest(self) -> str:
        """SHA-256 over shape, classes, pixels and labels."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        content = hashlib.sha256(repr((self._pixels.shape, self._classes)).encode())
        content.update(np.ascontiguousarray(self._pixels).data)
        content.update(np.ascontiguousarray(self._labels.astype("<i8")).data)
        return content.hexdigest()

    def batch(self, ids: NDArray[np.int64]) -> Batch:
        """Returns the examples with these ids, as float32 in [0, 1].

        Raises `DatasetError` where there is no example with such an id.
        """
        if len(ids) > 0 and not 0 <= ids.min() <= ids.max() < len(self):
            raise DatasetError(
                f"dataset {self._name!r} has example ids from 0 to {len(self) - 1}, "
                f"asked for {ids.min()} to {ids.max()}"
            )
        inputs = torch.from_numpy(self._pixels[ids]).to(torch.float32).div_(PIXEL_MAX)
        return Batch(torch.from_numpy(ids.copy()), inputs, torch.from_numpy(self._labels[ids]))


def sample_ids(dataset: Dataset, limit: int | None) -> NDArray[np.int64]:
    """Returns the ids of all examples in order, or a sample of ``limit`` of them.

    The sample is the first ``limit`` of one fixed shuffle, in which one example of each class
    comes first, so that a sample holds every class as soon as it has room for them, and a larger
    sample holds the smaller ones.  The ids of a sample come in ascending order.

    Raises `SpecError` where ``limit`` is not positive.
    """
    if limit is not None and limit < 1:
        raise SpecError(
            f"limit must be at least 1 example, got {limit}; leave it out to take all "
            f"{len(dataset)} of {dataset.name!r}"
        )
    everything = np.arange(len(dataset), dtype=np.int64)
    if limit is None or limit >= len(dataset):
        return everything
    shuffled = _shuffle(len(dataset))
    _, first_of_class = np.unique(dataset.labels[shuffled], return_index=True)
    front = np.sort(first_of_class)
    order = np.concatenate([shuffled[front], np.delete(shuffled, front)])
    return np.sort(order[:limit])


def _shuffle(count: int) -> NDArray[np.int64]:
    # The positions sorted by one random number each: the same with every version of every library.
    streams = ExampleStreams.derive(SAMPLE_KEY, torch.arange(count))
    return np.argsort(streams.keys.numpy(), kind="stable").astype(np.int64)


def _check_parts(
    name: str,
    pixels: NDArray[np.uint8],
    *,
    targets: NDArray[np.integer[Any]],
    classes: tuple[str, ...],
) -> None:
    if len(pixels) == 0:
        raise DatasetError(f"dataset {name!r} is empty")
    if pixels.dtype != np.uint8 or pixels.ndim < 2:
        raise DatasetError(
            f"dataset {name!r} needs inputs of dtype uint8 and shape (N, ...), "
            f"got {pixels.dtype} and {pixels.shape}"
        )
    if not np.issubdtype(targets.dtype, np.integer) or targets.ndim != 1:
        raise DatasetError(
            f"dataset {name!r} needs integer labels of shape (N,), "
            f"got {targets.dtype} and {targets.shape}"
        )
    if len(pixels) != len(targets):
        raise DatasetError(f"dataset {name!r} has {len(pixels)} inputs but {len(targets)} labels")
    low, high = int(targets.min()), int(targets.max())
    if low < 0 or high >= len(classes):
        raise DatasetError(
            f"dataset {name!r} has labels from {low} to {high}, expected 0 to {len(classes) - 1}"
        )


def _read_only(array: NDArray[Any]) -> NDArray[Any]:
    view = array.view()
    view.flags.writeable = False
    return view
