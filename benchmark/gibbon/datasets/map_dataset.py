"""A map-style torch `Dataset`: its items are examples, and their positions the example ids.

All items are read once when the dataset is made: labels, shapes and bounds are checked, and their
content goes into the digest, an item at a time.  As many as fit stay in memory; the others are read
again when they are needed, and must be the same then: an item that is not, because of a random
transform, say, makes a result that can't be repeated.
"""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from PIL.Image import Image

from gibbon.core.errors import DatasetError
from gibbon.core.threat import Bounds
from gibbon.datasets.array_dataset import check_labels, check_range, name_classes
from gibbon.datasets.base import PIXEL_BOUNDS, PIXEL_MAX, Batch, Dataset
from gibbon.datasets.image_transforms import Agreement, Look, Preparation, look_at
from gibbon.datasets.prefetch import (
    Assembly,
    Ids,
    Kept,
    check_ids,
    choose_workers,
    grouped,
    read_ahead,
)

READ_TWICE = 16  # items that are read twice at first: a coin toss would have to fall alike 16 times
DIGEST_BYTES = 16  # of one item
RANDOM = (
    "an item must be the same every time, or the result can't be repeated: leave random transforms "
    "out"
)


@runtime_checkable
class Items(Protocol):
    """What can be asked for its length and for an item by position."""

    def __len__(self) -> int: ...

    def __getitem__(self, position: int, /) -> Any: ...


class ItemsDataset(Dataset):
    """The items of a map-style dataset, each a pair of an input and a label.

    Inputs are uint8, floating-point in [0, 1], or PIL's pictures.

    Args:
        name: what the tables say.
        items: the pairs.
        collate: makes a batch of a list of items, as a `DataLoader`'s does; none if None.
        preparation: what is done to PIL's pictures.
        workers: processes that read; chosen if None.
        classes: the classes' names, by label, if they are known; they are the model's, one for one,
            unless a label exceeds them.
        positions: which items, if not all.

    Raises `DatasetError` where items are not such pairs, do not go together, or change.
    """

    def __init__(
        self,
        name: str,
        items: Items,
        *,
        collate: Callable[[list[Any]], Any] | None = None,
        preparation: Preparation,
        workers: int | None,
        classes: tuple[str, ...] = (),
        positions: Ids | None = None,
        notes: tuple[str, ...] = (),
    ) -> None:
        count = len(items) if positions is None else len(positions)
        if count == 0:
            raise DatasetError(f"dataset {name!r} is empty")
        self._name = name
        self._workers = workers
        self._positions = np.arange(count) if positions is None else positions
        self._reader = _Reader(name, items, collate, preparation)
        self._survey, self._kept = self._read_all()
        self._labels = check_labels(self._survey.labels, name=name)
        self._classes = name_classes(classes, self._labels)
        self._partial = self._classes != classes
        self._notes = (*notes, *self._survey.notes)

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
        return self._survey.input_shape

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
        """What was left aside, and what was done to pictures."""
        return self._notes

    @property
    def digest(self) -> str:
        """SHA-256 over shape, kind, classes, and the content and label of every item in order."""
        kind = (self._survey.kind, self._survey.input_shape, self._classes)
        content = hashlib.sha256(repr(kind).encode())
        content.update(b"".join(self._survey.digests))
        return content.hexdigest()

    def batch(self, ids: Ids) -> Batch:
        """Returns the examples with these ids.

        Raises `DatasetError` where there is no such id, and for an item that has changed.
        """
        return next(self.batches([ids]))

    def batches(self, chunks: Sequence[Ids]) -> Generator[Batch, None, None]:
        """Yields one batch for each list of ids; items are read ahead.

        Raises `DatasetError` where there is no such id, and for an item that has changed.
        """
        for chunk in chunks:
            check_ids(chunk, name=self._name, count=len(self))
        assembly = Assembly(
            read=_Again(self._reader, self._positions, self._survey.digests),
            labels=self._labels,
            kept=self._kept,
            input_shape=self.input_shape,
            size=self._survey.bytes,
            scale=PIXEL_MAX if self._survey.kind == "uint8" else 1.0,
            workers=self._workers,
        )
        return assembly.batches(chunks)

    def _read_all(self) -> tuple[_Survey, Kept]:
        name, positions = self._name, self._positions
        spread = np.unique(np.linspace(0, len(positions) - 1, READ_TWICE).astype(np.int64))
        first = self._reader(positions[spread])
        for one, other in zip(first, self._reader(positions[spread]), strict=True):
            if one.digest != other.digest:
                raise DatasetError(f"dataset {name!r}: {one.say} differs when read again: {RANDOM}")
        survey = _Survey(name, first[0], Agreement(name, self._reader.preparation))
        like = first[0].content
        kept = Kept(len(positions), like.shape, dtype=like.dtype)
        workers = choose_workers(self._workers, len(positions))
        groups = grouped(positions, size=survey.bytes, workers=workers)
        for _, found in read_ahead(self._reader, groups, workers=workers):
            for item in found:
                survey.add(item)
                kept.add(len(survey.digests) - 1, item.content)
        check_range(survey.low, survey.high, name=name)
        return survey, kept


@dataclass(frozen=True)
class _Item:
    position: int
    content: NDArray[Any]
    label: int
    look: Look | None
    digest: bytes

    @property
    def say(self) -> str:
        return f"item {self.position}"

    @property
    def kind(self) -> str:
        return str(self.content.dtype)


class _Survey:
    """What all items have in common, and what each one is."""

    def __init__(self, name: str, first: _Item, agreement: Agreement) -> None:
        self.name = name
        self.first = first
        self.agreement = agreement
        self.low, self.high = np.inf, -np.inf
        self.digests: list[bytes] = []
        self._labels: list[int] = []

    def add(self, item: _Item) -> None:
        """Takes in the next item.  Raises `DatasetError` where it does not go with the first."""
        if item.look is not None:
            self.agreement.add(item.say, item.look)
        for what, expected, came in [
            ("shape", self.first.content.shape, item.content.shape),
            ("dtype", self.first.kind, item.kind),
        ]:
            if expected != came:
                raise DatasetError(
                    f"dataset {self.name!r}: inputs must be alike: {self.first.say} has {what} "
                    f"{expected}, {item.say} has {came}"
                )
        if item.kind != "uint8":
            self.low = np.minimum(self.low, item.content.min())
            self.high = np.maximum(self.high, item.content.max())
        self.digests.append(item.digest)
        self._labels.append(item.label)

    @property
    def kind(self) -> str:
        return self.first.kind

    @property
    def input_shape(self) -> tuple[int, ...]:
        return tuple(self.first.content.shape)

    @property
    def bytes(self) -> int:
        return self.first.content.nbytes

    @property
    def labels(self) -> NDArray[np.int64]:
        return np.array(self._labels, dtype=np.int64)

    @property
    def notes(self) -> tuple[str, ...]:
        return self.agreement.notes


@dataclass(frozen=True)
class _Reader:
    """Reads items by position."""

    name: str
    items: Items
    collate: Callable[[list[Any]], Any] | None
    preparation: Preparation

    def __call__(self, positions: Ids) -> list[_Item]:
        return [self._read(position) for position in positions.tolist()]

    def _read(self, position: int) -> _Item:
        say = f"dataset {self.name!r}: item {position}"
        try:
            found = self.items[position]
            if self.collate is not None:
                found = self.collate([found])
        except Exception as error:  # the dataset is somebody else's
            raise DatasetError(f"{say} can't be read: {type(error).__name__}: {error}") from error
        given, written = pair_of(found, say=say)
        if self.collate is not None:
            given, written = _only(given, say=say), _only(written, say=say)
        look = look_at(given) if isinstance(given, Image) else None
        content = as_input(given, self.preparation, say=say)
        label = as_label(written, say=say)
        return _Item(position, content, label, look, digest_of(content, label))


@dataclass(frozen=True)
class _Again:
    """Reads examples by id, and sees that they are what they were."""

    reader: _Reader
    positions: Ids
    digests: Sequence[bytes]

    def __call__(self, ids: Ids) -> list[NDArray[Any]]:
        items = self.reader(self.positions[ids])
        for example, item in zip(ids.tolist(), items, strict=True):
            if item.digest != self.digests[example]:
                raise DatasetError(
                    f"dataset {self.reader.name!r}: {item.say} differs from when it was first "
                    f"read: {RANDOM}"
                )
        return [item.content for item in items]


def digest_of(content: NDArray[Any], label: int) -> bytes:
    """Returns a digest of an example."""
    digest = hashlib.blake2b(content.data, digest_size=DIGEST_BYTES)
    digest.update(label.to_bytes(8, "little", signed=True))
    return digest.digest()


def pair_of(found: Any, *, say: str) -> tuple[Any, Any]:
    """Returns input and label of an item.  Raises `DatasetError` where it is no pair."""
    if isinstance(found, tuple | list) and len(found) == 2:
        return found[0], found[1]
    came = type(found).__name__
    if isinstance(found, tuple | list):
        came += f" of {len(found)}"
    elif isinstance(found, dict):
        came += f" with the keys {', '.join(map(repr, found))}"
    raise DatasetError(f"{say} is a {came}: expected a pair of an input and a label")


def as_input(given: Any, preparation: Preparation, *, say: str) -> NDArray[Any]:
    """Returns an input as an array of uint8 or float32.  Raises `DatasetError`."""
    if isinstance(given, Image):
        from gibbon.datasets.image_resize import prepare

        return prepare(given, preparation)
    if preparation.declared:
        raise DatasetError(
            f"{say} holds a {type(given).__name__}: {', '.join(preparation.declared)} apply to "
            "pictures; resize in the dataset's own transform"
        )
    array = as_array(given, say=say)
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array)
    if not np.issubdtype(array.dtype, np.floating):
        raise DatasetError(
            f"{say}: inputs must be uint8, of which 255 stands for 1, or floating-point in [0, 1], "
            f"got {array.dtype}"
        )
    return np.ascontiguousarray(array, dtype=np.float32)


def as_array(given: Any, *, say: str) -> NDArray[Any]:
    """Returns a tensor or an array as an array.  Raises `DatasetError` for anything else."""
    if isinstance(given, torch.Tensor):
        plain = given.detach().cpu()
        wide = plain.float() if plain.dtype in (torch.bfloat16, torch.float16) else plain
        return np.asarray(wide.numpy())
    if isinstance(given, np.ndarray):
        return given
    raise DatasetError(
        f"{say} holds a {type(given).__name__}: expected a tensor, an array or a PIL picture"
    )


def as_label(written: Any, *, say: str) -> int:
    """Returns a label as a number.  Raises `DatasetError` where it is none, or a soft one."""
    try:
        return operator.index(written)
    except TypeError:
        pass
    came = type(written).__name__
    shape = tuple(getattr(written, "shape", ()))
    if shape:
        came = f"{getattr(written, 'dtype', came)} of shape {shape}"
    cure = "for one-hot or soft labels give the index of the largest" if shape else "give its index"
    raise DatasetError(f"{say}: a label must be the index of one class, got {came}: {cure}")


def _only(batch: Any, *, say: str) -> Any:
    """Returns the one member of a batch of one."""
    try:
        (member,) = batch
    except (TypeError, ValueError):
        raise DatasetError(
            f"{say}: the loader's collate_fn must make a batch of one of one item, got "
            f"{type(batch).__name__}"
        ) from None
    return member
