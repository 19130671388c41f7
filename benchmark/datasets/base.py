"""What a dataset is to us: examples with ids that never change, given out by batches.

An example id is the example's position in its dataset's split.  It stays the same whatever the
order, the batch size, the sharding or the limit.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmark.errors import DatasetError
from benchmark.rng import ExampleStreams, derive_key
from benchmark.threat import Bounds

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

    name: str
    classes: tuple[str, ...]
    input_shape: tuple[int, ...]
    bounds: Bounds

    @property
    @abstractmethod
    def labels(self) -> NDArray[np.int64]:
        """The label of every example, shape (N,), by example id."""

    @property
    @abstractmethod
    def digest(self) -> str:
        """A digest of the content: inputs, labels and their order."""

    @abstractmethod
    def batch(self, ids: NDArray[np.int64]) -> Batch:
        """Returns the examples with these ids, in this order."""

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class ArrayDataset(Dataset):
    """A dataset that is small enough to sit in memory as bytes.

    Args:
        name: registered name.
        pixels: uint8, shape (N, C, H, W); inputs are ``pixels / 255``, float32 in [0, 1].
        targets: integers, shape (N,), in ``range(len(classes))``.
        classes: the classes' names, by label.

    Raises `DatasetError` where it is empty or its parts don't fit together.
    """

    name: str  # type: ignore[misc]
    pixels: NDArray[np.uint8]
    targets: NDArray[np.int64]
    classes: tuple[str, ...]  # type: ignore[misc]
    bounds: Bounds = Bounds(0.0, 1.0)  # type: ignore[misc]

    def __post_init__(self) -> None:
        if len(self.pixels) == 0:
            raise DatasetError(f"dataset {self.name!r} is empty")
        if len(self.pixels) != len(self.targets):
            raise DatasetError(
                f"dataset {self.name!r} has {len(self.pixels)} inputs "
                f"but {len(self.targets)} labels"
            )
        low, high = int(self.targets.min()), int(self.targets.max())
        if low < 0 or high >= len(self.classes):
            raise DatasetError(
                f"dataset {self.name!r} has labels from {low} to {high}, "
                f"expected 0 to {len(self.classes) - 1}"
            )

    @property
    def input_shape(self) -> tuple[int, ...]:  # type: ignore[override]
        """Shape of one input: (channels, height, width)."""
        return tuple(self.pixels.shape[1:])

    @property
    def labels(self) -> NDArray[np.int64]:
        """The label of every example, shape (N,)."""
        return self.targets

    @cached_property
    def digest(self) -> str:  # type: ignore[override]
        """SHA-256 over shape, pixels and labels."""
        content = hashlib.sha256(repr((self.pixels.shape, self.classes)).encode())
        content.update(np.ascontiguousarray(self.pixels).data)
        content.update(np.ascontiguousarray(self.targets.astype("<i8")).data)
        return content.hexdigest()

    def batch(self, ids: NDArray[np.int64]) -> Batch:
        """Returns the examples with these ids, as float32 in [0, 1]."""
        inputs = torch.from_numpy(self.pixels[ids]).to(torch.float32).div_(255.0)
        return Batch(torch.from_numpy(ids), inputs, torch.from_numpy(self.targets[ids]))


def sample_ids(dataset: Dataset, limit: int | None) -> NDArray[np.int64]:
    """Returns the ids of all examples in order, or a sample of ``limit`` of them.

    The sample is the first ``limit`` of one fixed shuffle, in which one example of each class
    comes first, so that a sample holds every class as soon as it has room for them.  The ids of a
    sample come in ascending order.
    """
    everything = np.arange(len(dataset), dtype=np.int64)
    if limit is None or limit >= len(dataset):
        return everything
    shuffled = everything[_shuffle(len(dataset))]
    _, first_of_class = np.unique(dataset.labels[shuffled], return_index=True)
    front = np.sort(first_of_class)
    order = np.concatenate([shuffled[front], np.delete(shuffled, front)])
    return np.sort(order[:limit])


def _shuffle(count: int) -> NDArray[np.int64]:
    # The positions sorted by one random number each: the same with every version of every library.
    streams = ExampleStreams.derive(SAMPLE_KEY, torch.arange(count))
    return np.argsort(streams.keys.numpy(), kind="stable")
