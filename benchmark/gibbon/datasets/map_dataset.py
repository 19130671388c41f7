"""A map-style torch `Dataset`: its items are examples, and their positions the example ids.

All items are read once when the dataset is made: labels, shapes and bounds are checked, and their
content enters the digest, one item at a time.  As many as fit stay in memory; the others are read
again when they are needed, and must not have changed: an item that has, because of a random
transform for example, gives results that can't be repeated.
"""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from PIL.Image import Image

from gibbon.core.errors import DatasetError
from gibbon.core.fixed_inputs import FIXED_INPUTS
from gibbon.core.plain_tensors import NUMPY_DTYPES, plain
from gibbon.core.registry import their_code
from gibbon.core.threat import PIXEL_BOUNDS, Bounds
from gibbon.datasets.array_dataset import check_labels, describe
from gibbon.datasets.base import Batch, Dataset
from gibbon.datasets.image_transforms import ImageConsistency, ImageHeader, Preparation, read_header
from gibbon.datasets.input_range import check_dtype, check_range
from gibbon.datasets.prefetch import (
    Assembly,
    ExampleCache,
    Ids,
    choose_workers,
    grouped,
    read_ahead,
)

READ_TWICE = 16  # items that are read twice at first: a coin toss would have to fall alike 16 times
DIGEST_BYTES = 16  # of one item
RANDOM = (
    "an item must not change between reads, or the result can't be repeated: leave random "
    "transforms out"
)


@runtime_checkable
class Items(Protocol):
    """An object with a length and items by position."""

    def __len__(self) -> int: ...

    def __getitem__(self, position: int, /) -> Any: ...


class MapDataset(Dataset):
    """The items of a map-style dataset, each a pair of an input and a label.

    Inputs are uint8, floating-point in [0, 1], or PIL's pictures; with declared bounds they are
    numbers of any kind in these bounds.

    Args:
        name: name in tables and messages.
        items: the pairs.
        collate: makes a batch of a list of items, as a `DataLoader`'s does; unused if None.
        preparation: transforms of PIL images.
        workers: processes that read; chosen if None.
        classes: names of the classes, by label, if known; they are the model's, one for one,
            unless a label exceeds them.
        positions: positions of the items to take; all if None.
        bounds: lowest and highest value of an input; [0, 1] if None.
        notes: sentences for a reader of the results.

    Raises `DatasetError` if items are not such pairs, differ in shape or dtype, or change.
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
        bounds: Bounds | None = None,
        notes: tuple[str, ...] = (),
    ) -> None:
        count = length_of(items, name=name) if positions is None else len(positions)
        if count == 0:
            raise DatasetError(f"dataset {name!r} is empty")
        if positions is None:
            positions = np.arange(count)
        reader = _Reader(name, items, collate, preparation, bounds)
        survey, kept = _read_all(reader, positions, workers=workers)
        labels = check_labels(np.array(survey.labels, dtype=np.int64), name=name)
        notes = (*notes, *survey.agreement.notes)
        shape = tuple(survey.first.content.shape)
        self.info = describe(name, labels, shape, classes=classes, bounds=bounds, notes=notes)
        self._kind = survey.first.kind
        self._again = _Rereader(reader, positions, survey.digests)
        self._assembly = Assembly(self._again, self.info, kept, workers)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over shape, dtype, classes, and the content and label of every item in order."""
        header = repr((self._kind, self.info.input_shape, self.info.classes)).encode()
        return hashlib.sha256(header + b"".join(self._again.digests)).hexdigest()

    def batch(self, ids: Ids) -> Batch:
        """Returns the examples with these ids.

        Raises `DatasetError` if there is no such id, and for an item that has changed.
        """
        return next(self.batches([ids]))

    def batches(self, chunks: Sequence[Ids]) -> Generator[Batch, None, None]:
        """Yields one batch for each list of ids; items are prefetched.

        Raises `DatasetError` if there is no such id, and for an item that has changed.
        """
        return self._assembly.batches(chunks)


def _read_all(
    reader: _Reader, positions: Ids, *, workers: int | None
) -> tuple[_Survey, ExampleCache]:
    """Reads every item once, and a few of them twice."""
    name = reader.name
    spread = np.unique(np.linspace(0, len(positions) - 1, READ_TWICE).astype(np.int64))
    first = reader(positions[spread])
    for one, other in zip(first, reader(positions[spread]), strict=True):
        if one.digest != other.digest:
            raise DatasetError(f"dataset {name!r}: {one.say} differs when read again: {RANDOM}")
    survey = _Survey(name, first[0], ImageConsistency(name, reader.preparation))
    content = first[0].content
    kept = ExampleCache(len(positions), content.shape, dtype=content.dtype)
    workers = choose_workers(workers, len(positions))
    groups = grouped(positions, size=kept.size, workers=workers)
    for _, found in read_ahead(reader, groups, workers=workers):
        for item in found:
            survey.add(item)
            kept.add(len(survey.digests) - 1, item.content)
    shape = tuple(content.shape)
    check_range(survey.low, survey.high, name=name, shape=shape, declared=reader.bounds)
    return survey, kept


@dataclass(frozen=True)
class _Item:
    position: int
    content: NDArray[Any]
    label: int
    header: ImageHeader | None
    digest: bytes

    @property
    def say(self) -> str:
        return f"item {self.position}"

    @property
    def kind(self) -> str:
        return str(self.content.dtype)


@dataclass
class _Survey:
    """Collects labels, digests and range of all items, and checks that they are alike."""

    name: str
    first: _Item
    agreement: ImageConsistency
    low: float = np.inf
    high: float = -np.inf
    digests: list[bytes] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)

    def add(self, item: _Item) -> None:
        """Adds the next item.  Raises `DatasetError` if its shape or dtype differs."""
        if item.header is not None:
            self.agreement.add(item.say, item.header)
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
        self.labels.append(item.label)


@dataclass(frozen=True)
class _Reader:
    """Reads items by position."""

    name: str
    items: Items
    collate: Callable[[list[Any]], Any] | None
    preparation: Preparation
    bounds: Bounds | None

    def __call__(self, positions: Ids) -> list[_Item]:
        return [self._read(position) for position in positions.tolist()]

    def _read(self, position: int) -> _Item:
        say = f"dataset {self.name!r}: item {position}"
        with their_code(f"{say} can't be read", kind=DatasetError):
            found = self.items[position]
            if self.collate is not None:
                found = self.collate([found])
        given, written = pair_of(found, say=say)
        if self.collate is not None:
            given, written = _only(given, say=say), _only(written, say=say)
        header = read_header(given) if isinstance(given, Image) else None
        content = as_input(given, self.preparation, say=say, bounds=self.bounds)
        label = as_label(written, say=say)
        return _Item(position, content, label, header, digest_of(content, label))


@dataclass(frozen=True)
class _Rereader:
    """Reads examples by id again, and checks that they have not changed."""

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


def length_of(items: Any, *, name: str) -> int:
    """Returns the number of items of a user's dataset.  Raises `DatasetError` if it has none."""
    with their_code(f"dataset {name!r}: its __len__ can't be used", kind=DatasetError):
        return len(items)


def digest_of(content: NDArray[Any], label: int) -> bytes:
    """Returns a digest of the content and label of an example."""
    digest = hashlib.blake2b(content.data, digest_size=DIGEST_BYTES)
    digest.update(label.to_bytes(8, "little", signed=True))
    return digest.digest()


def pair_of(found: Any, *, say: str) -> tuple[Any, Any]:
    """Returns input and label of an item, tensors as plain ones.

    Raises `DatasetError` if it is not a pair.
    """
    if isinstance(found, tuple | list) and len(found) == 2:
        if isinstance(found[0], tuple | list) and len(found[0]) > 1:
            raise DatasetError(
                f"{say}: its input is a {type(found[0]).__name__} of {len(found[0])}, expected a "
                f"tensor. For {_several(len(found[0]), '(item[0][0], item[1])')}"
            )
        first, second = (
            plain(each, what=f"{say}: what it holds", problem=DatasetError)
            if isinstance(each, torch.Tensor)
            else each
            for each in found
        )
        return first, second
    if isinstance(found, tuple | list) and len(found) > 2:
        raise DatasetError(
            f"{say} is a {type(found).__name__} of {len(found)}: expected a pair of an input and "
            "a label. If more follows the label, leave it out: [(item[0], item[1]) for item in "
            f"items]. For {_several(len(found) - 1, '(item[0], item[-1])')}"
        )
    came = type(found).__name__
    if isinstance(found, tuple | list):
        came += f" of {len(found)}"
    elif isinstance(found, dict):
        came += f" with the keys {', '.join(map(repr, found))}"
    raise DatasetError(f"{say} is a {came}: expected a pair of an input and a label")


def _several(count: int, pair: str) -> str:
    """Returns what to do about items of several inputs, for messages."""
    return (
        f"more than one input ({count}), wrap the model in a module that holds the others, the "
        f"same for all examples, and give pairs:\n{FIXED_INPUTS}\n"
        f"    data = [{pair} for item in items]\n\n"
        "If the others differ from example to example, join them to the first as channels"
    )


def as_input(
    given: Any, preparation: Preparation, *, say: str, bounds: Bounds | None = None
) -> NDArray[Any]:
    """Returns an input as an array of uint8, which are divided by 255, or of float32.

    With other declared bounds than [0, 1] it is float32.  Raises `DatasetError`.
    """
    if isinstance(given, Image):
        if bounds not in (None, PIXEL_BOUNDS):
            raise DatasetError(
                f"{say} holds a picture, whose inputs are in [0, 1]: leave out the bounds, or give "
                "tensors"
            )
        from gibbon.datasets.image_resize import prepare

        return prepare(given, preparation)
    if preparation.declared:
        raise DatasetError(
            f"{say} holds a {type(given).__name__}: {', '.join(preparation.declared)} apply to "
            "pictures; resize in the dataset's own transform"
        )
    array = as_array(given, say=say)
    check_dtype(array.dtype, say=say, declared=bounds)
    are_bytes = array.dtype == np.uint8 and bounds in (None, PIXEL_BOUNDS)
    kind = np.uint8 if are_bytes else np.float32
    return np.array(array, dtype=kind, order="C")  # a copy: a dataset may use one buffer for all


def as_array(given: Any, *, say: str) -> NDArray[Any]:
    """Returns a tensor or an array as a plain array.  Raises `DatasetError` for anything else."""
    if isinstance(given, torch.Tensor):
        tensor = plain(given, what=f"{say}: what it holds", problem=DatasetError)
        tensor = tensor.detach().cpu().resolve_neg().resolve_conj()
        narrow = tensor.is_floating_point() and tensor.dtype not in NUMPY_DTYPES
        return np.asarray((tensor.float() if narrow else tensor).numpy())
    if isinstance(given, np.ma.MaskedArray) and np.ma.is_masked(given):
        raise DatasetError(f"{say} holds a masked array, in which values are missing")
    if isinstance(given, np.ndarray):
        return np.asarray(given)
    raise DatasetError(
        f"{say} holds a {type(given).__name__}: expected a tensor, an array or a PIL picture"
    )


def as_label(written: Any, *, say: str) -> int:
    """Returns a label as an integer; ``3.0`` is 3.  Raises `DatasetError` for anything else."""
    if isinstance(written, torch.Tensor):
        written = plain(written, what=f"{say}: a label", problem=DatasetError)
    try:
        return operator.index(written)
    except TypeError:
        pass
    single = getattr(written, "ndim", 0) == 0  # the number of a tensor or an array without axes
    number = written.item() if single and hasattr(written, "item") else written
    if isinstance(number, float) and number.is_integer():
        return int(number)
    came = type(written).__name__
    shape = tuple(getattr(written, "shape", ()))
    if shape:
        came = f"{getattr(written, 'dtype', came)} of shape {shape}"
    elif isinstance(number, float | str):
        came = f"{came} {number!r}"
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
