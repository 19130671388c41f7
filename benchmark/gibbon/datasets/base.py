"""The interface of a dataset: labelled examples with fixed ids, read in batches.

An example id is the example's position in its dataset's split.  It depends neither on the order in
which examples are read nor on batch size, sharding or limit.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gibbon.core.errors import DatasetError, SpecError
from gibbon.core.rng import ExampleStreams, derive_key
from gibbon.core.threat import PIXEL_BOUNDS, Bounds

T = TypeVar("T", bound=np.generic)

PIXEL_MAX = 255.0  # of an 8-bit picture
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
        """Returns the batch on another device.

        On its way to a GPU it goes through pinned memory, so that the processor does not wait.
        """
        parts = [self.ids, self.inputs, self.labels]
        if device.type == "cuda":
            parts = [each.pin_memory() if each.device.type == "cpu" else each for each in parts]
        waits = device.type == "cpu"  # what is read there must have arrived
        return Batch(*(each.to(device, non_blocking=not waits) for each in parts))


@dataclass(frozen=True, eq=False)
class DatasetInfo:
    """Describes the examples of a dataset.

    Args:
        name: name in tables and messages; the registered name of a registered dataset.
        labels: int64, shape (N,), by example id.
        classes: names of the classes, by label.
        input_shape: shape of one input: (channels, height, width) for images.
        bounds: lowest and highest value of an input.
        partial: whether labels count among the model's own classes, of which some may have no
            example.  Otherwise the dataset's classes are the model's, one for one.
        class_order: how classes got their labels, such as ``"names sorted as text: 0 is cat"``;
            empty if the dataset defines its labels.
        notes: sentences for a reader of the results about how the data were read.
        no_class: whether the inputs belong to no class; the labels are then -1.
        bounded: whether the inputs lie within the bounds.
    """

    name: str
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    input_shape: tuple[int, ...]
    bounds: Bounds = PIXEL_BOUNDS
    partial: bool = False
    class_order: str = ""
    notes: tuple[str, ...] = ()
    no_class: bool = False
    bounded: bool = True

    def check_ids(self, ids: NDArray[np.int64]) -> None:
        """Raises `DatasetError` if there is no example with one of these ids."""
        count = len(self.labels)
        if len(ids) > 0 and not 0 <= ids.min() <= ids.max() < count:
            raise DatasetError(
                f"dataset {self.name!r} has example ids from 0 to {count - 1}, "
                f"got {ids.min()} to {ids.max()}"
            )


class Dataset(ABC):
    """A split of labelled examples.

    A subclass sets ``info`` and defines `digest` and `batch`.
    """

    info: DatasetInfo

    @property
    def name(self) -> str:
        """Name in tables and messages."""
        return self.info.name

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, by label."""
        return self.info.classes

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input: (channels, height, width) for images."""
        return self.info.input_shape

    @property
    def bounds(self) -> Bounds:
        """Lowest and highest value of an input."""
        return self.info.bounds

    @property
    def labels(self) -> NDArray[np.int64]:
        """Labels of all examples, shape (N,), by example id."""
        return self.info.labels

    @property
    def partial(self) -> bool:
        """Whether labels count among the model's own classes; see `DatasetInfo`."""
        return self.info.partial

    @property
    def class_order(self) -> str:
        """How classes got their labels; empty if the dataset defines its labels."""
        return self.info.class_order

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences for a reader of the results about how the data were read."""
        return self.info.notes

    @property
    @abstractmethod
    def digest(self) -> str:
        """Digest of the content: inputs, labels and their order."""

    @abstractmethod
    def batch(self, ids: NDArray[np.int64]) -> Batch:
        """Returns the examples with these ids, in this order."""

    def batches(self, chunks: Sequence[NDArray[np.int64]]) -> Generator[Batch, None, None]:
        """Yields one batch for each list of ids; a dataset that reads files prefetches them.

        Closing the generator stops the prefetching.
        """
        for chunk in chunks:
            yield self.batch(chunk)

    def unreadable(
        self, ids: NDArray[np.int64], *, progress: Callable[[int], None]
    ) -> Mapping[int, str]:
        """Returns the examples among these that can't be read: file and reason, by id.

        ``progress`` is called with the number of examples checked since its last call.
        """
        progress(len(ids))
        return {}

    def __len__(self) -> int:
        return len(self.labels)


class ArrayDataset(Dataset):
    """A dataset in memory, as 8-bit values.

    Args:
        name: registered name.
        pixels: uint8, shape (N, *input_shape), (N, C, H, W) for images; inputs are
            ``pixels / 255``, float32 in [0, 1].
        targets: integers, shape (N,), in ``range(len(classes))``.
        classes: names of the classes, by label.
        bounds: lowest and highest value of an input; they contain [0, 1].
        notes: sentences for a reader of the results.

    Raises `DatasetError` if it is empty or its parts don't fit together.

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
        notes: tuple[str, ...] = (),
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
            raise DatasetError(
                f"dataset {name!r} has {len(pixels)} inputs but {len(targets)} labels"
            )
        low, high, count = int(targets.min()), int(targets.max()), len(classes)
        if low < 0 or high >= count:
            raise DatasetError(
                f"dataset {name!r} has labels from {low} to {high}, expected 0 to {count - 1}"
            )
        if bounds.low > PIXEL_BOUNDS.low or bounds.high < PIXEL_BOUNDS.high:
            raise DatasetError(
                f"dataset {name!r} has inputs in [0, 1] but bounds "
                f"[{bounds.low:g}, {bounds.high:g}]"
            )
        self.pixels = read_only(pixels)
        labels = read_only(targets.astype(np.int64, copy=False))
        shape = tuple(pixels.shape[1:])
        self.info = DatasetInfo(name, labels, tuple(classes), shape, bounds, notes=notes)

    @property
    def targets(self) -> NDArray[np.int64]:
        """Labels of all examples, under the name that torchvision gives them."""
        return self.labels

    @cached_property
    def digest(self) -> str:
        """SHA-256 over shape, classes, pixels and labels."""
        header = repr((self.pixels.shape, self.info.classes))
        return hash_content(header, [np.ascontiguousarray(self.pixels).data], self.info.labels)

    def batch(self, ids: NDArray[np.int64]) -> Batch:
        """Returns the examples with these ids, as float32 in [0, 1].

        Raises `DatasetError` if there is no example with one of the ids.
        """
        self.info.check_ids(ids)
        inputs = torch.from_numpy(self.pixels[ids]).to(torch.float32).div_(PIXEL_MAX)
        return Batch(torch.from_numpy(ids.copy()), inputs, torch.from_numpy(self.info.labels[ids]))


def hash_content(
    header: str, parts: Iterable[bytes | memoryview], labels: NDArray[np.int64]
) -> str:
    """Returns the SHA-256 over a header, the parts of the inputs in order, and the labels."""
    content = hashlib.sha256(header.encode())
    for part in parts:
        content.update(part)
    content.update(np.ascontiguousarray(labels.astype("<i8")).data)
    return content.hexdigest()


def read_only(array: NDArray[T]) -> NDArray[T]:
    """Returns a view of an array that can't be written to."""
    view = array.view()
    view.flags.writeable = False
    return view


def sample_ids(dataset: Dataset, limit: int | None) -> NDArray[np.int64]:
    """Returns the ids of all examples in order, or a sample of ``limit`` of them.

    The sample is the first ``limit`` of one fixed shuffle, in which one example of each class
    comes first, so that a sample holds every class as soon as it has room for them, and a larger
    sample holds the smaller ones.  The ids of a sample come in ascending order.

    Raises `SpecError` if ``limit`` is not positive.
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
    # Sorting by one random number each gives one order with every version of every library.
    streams = ExampleStreams.derive(SAMPLE_KEY, torch.arange(count))
    return np.argsort(streams.keys.numpy(), kind="stable").astype(np.int64)
