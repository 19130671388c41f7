"""Wraps tensors, torch datasets and loaders as datasets."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray
from torch import Generator, Tensor
from torch.utils.data import (
    ConcatDataset,
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    TensorDataset,
)

from gibbon.core.errors import DatasetError
from gibbon.core.registry import their_code
from gibbon.core.threat import Bounds
from gibbon.datasets.array_dataset import HeldDataset
from gibbon.datasets.base import Dataset
from gibbon.datasets.image_transforms import Preparation
from gibbon.datasets.iterable_dataset import ExamplePair, store_stream
from gibbon.datasets.map_dataset import (
    Items,
    MapDataset,
    as_array,
    as_input,
    as_label,
    digest_of,
    length_of,
    pair_of,
)
from gibbon.datasets.prefetch import Ids

COMPARED = 1024  # examples of a stream that are read a second time
AS_THEY_ARE = Preparation()
ACCEPTED = (
    "expected a pair (inputs, labels) of tensors or arrays, a torch Dataset whose items are pairs, "
    "or a DataLoader"
)
NOT_REPEATED = (
    "gives other examples when it is read again: results can't be repeated; leave out random "
    "transforms and shuffling"
)


def adopt_data(
    data: object,
    *,
    name: str,
    preparation: Preparation = AS_THEY_ARE,
    workers: int | None = 0,
    bounds: Bounds | None = None,
) -> Dataset:
    """Returns a dataset of tensors, a torch dataset or a loader.

    Labels are positions among the model's classes.  If a torch dataset names its classes, those are
    the model's, one for one, whether or not there is an example of each: see `class_names`.

    Accepted are:

    - A Gibbon `Dataset`, which is returned unchanged.
    - A pair of tensors, arrays or tables of pandas: inputs of shape (N, ...), uint8 or
      floating-point in [0, 1], and integer labels of shape (N,).  It is not copied.
    - A map-style torch `Dataset`: an item is a pair of a tensor, an array or a PIL picture and of a
      label; its position is the example id.  All items are read once, here.
    - A `DataLoader`: its dataset by position, with its ``collate_fn`` and its number of workers; a
      sampler that shuffles or a ``drop_last`` changes nothing.  A sampler that takes some of the
      items takes those, in the dataset's order.
    - An `IterableDataset`, or a loader of a dataset without random access: read once, into a
      temporary file, in its own order, by one process.  The first 1,024 examples are read a second
      time and compared, unless the second pass is empty.

    Args:
        data: any of these.
        name: name in tables and messages.
        preparation: transforms of PIL images.
        workers: processes that read a map-style dataset; chosen if None.  A loader has its own.
        bounds: lowest and highest value of an input, for inputs that are no pictures, such as
            tables, waveforms and embeddings; [0, 1] if None.

    Raises `DatasetError` if the data are of another kind, do not fit together, lie outside of their
    bounds, or differ when they are read again.

    >>> import torch
    >>> adopted = adopt_data((torch.rand(4, 3, 8, 8), torch.tensor([0, 3, 1, 1])), name="mine")
    >>> len(adopted), adopted.input_shape, adopted.partial
    (4, (3, 8, 8), True)
    """
    if isinstance(data, Dataset):
        if bounds not in (None, data.bounds):
            raise DatasetError(
                f"dataset {name!r} declares its own bounds, [{data.bounds.low:g}, "
                f"{data.bounds.high:g}]: leave out bounds"
            )
        return data
    form = _InputsForm(name, preparation, bounds)
    if isinstance(data, DataLoader):
        return _adopt_loader(data, form)
    if isinstance(data, IterableDataset):
        return _adopt_stream(data, form, classes=class_names(data))
    tensors = data.tensors if isinstance(data, TensorDataset) else data
    if isinstance(tensors, tuple | list) and len(tensors) == 2:
        tensors = [_from_table(each) for each in tensors]
    if isinstance(tensors, tuple | list) and len(tensors) == 2 and _is_array(tensors[0]):
        return _adopt_arrays(tensors, form)
    if isinstance(data, Items) and not isinstance(data, str | bytes | dict):
        classes = class_names(data)
        return MapDataset(
            name,
            data,
            preparation=preparation,
            workers=workers,
            classes=classes,
            bounds=bounds,
        )
    raise DatasetError(f"dataset {name!r}: {ACCEPTED}, got {type(data).__name__}")


def with_placeholders(data: object) -> object:
    """Returns an array of inputs, shape (N, ...), as a pair with labels of 0; any other data as is.

    For inputs without a class, whose labels are not read.
    """
    if isinstance(data, TensorDataset) and len(data.tensors) == 1:
        data = data.tensors[0]
    if _is_array(data):
        inputs: Any = data
        return inputs, np.zeros(len(inputs), dtype=np.int64)
    return data


@dataclass(frozen=True)
class _InputsForm:
    """The name of a dataset, and how its inputs are read."""

    name: str
    preparation: Preparation
    bounds: Bounds | None

    def input(self, given: Any, *, say: str) -> NDArray[Any]:
        return as_input(given, self.preparation, say=say, bounds=self.bounds)


def class_names(data: object) -> tuple[str, ...]:
    """Returns the class names of a torch dataset, by label, or an empty tuple.

    They are its ``classes``, names or tuples of synonyms, or else its ``class_to_idx``; a `Subset`
    has those of its dataset, a `ConcatDataset` those that all its datasets have.  A dataset with a
    ``target_transform``, or with a ``class_to_idx`` of its own making, has labels of which its
    names say nothing: it has none.
    """
    if isinstance(data, Subset):
        return class_names(data.dataset)
    if isinstance(data, ConcatDataset):
        first, *others = map(class_names, data.datasets)
        for other in others:
            _refuse_other_order(first, other)
        return first if all(each == first for each in others) else ()
    if getattr(data, "target_transform", None) is not None:
        return ()
    index = getattr(data, "class_to_idx", None)
    names = getattr(data, "classes", None)
    if not isinstance(names, list | tuple):
        names = sorted(index, key=index.__getitem__) if _is_index(index) else ()
    synonyms = tuple(each if isinstance(each, tuple) else (each,) for each in names)
    if not all(isinstance(each, str) for several in synonyms for each in several):
        return ()
    # Classes of one name each can be found in an index; a synonym may be that of several.
    single = all(len(several) == 1 for several in synonyms)
    if single and _is_index(index) and index != {name: k for k, (name,) in enumerate(synonyms)}:
        return ()
    return tuple(map(", ".join, synonyms))


def _refuse_other_order(first: Sequence[str], other: Sequence[str]) -> None:
    """Raises `DatasetError` if two datasets that are joined have different labels for a class."""
    for name in first:
        if name in other and first.index(name) != other.index(name):
            raise DatasetError(
                f"the datasets of a ConcatDataset number their classes differently: {name!r} is "
                f"{first.index(name)} in one and {other.index(name)} in another: give them one "
                "order, with a target_transform"
            )


def _is_index(thing: object) -> TypeGuard[dict[str, int]]:
    return isinstance(thing, dict) and all(isinstance(each, int) for each in thing.values())


def _adopt_arrays(
    pair: Sequence[Any], form: _InputsForm, *, notes: tuple[str, ...] = ()
) -> Dataset:
    say = f"dataset {form.name!r}"
    if form.preparation.declared:
        raise DatasetError(
            f"{say}: {', '.join(form.preparation.declared)} apply to pictures, and these are arrays"
        )
    inputs, labels = pair_of(pair, say=say)
    if isinstance(labels, list | tuple):
        labels = np.asarray(labels)
    return HeldDataset(
        form.name,
        as_array(inputs, say=say),
        labels=as_array(labels, say=say),
        bounds=form.bounds,
        notes=notes,
    )


def _adopt_loader(loader: DataLoader[Any], form: _InputsForm) -> Dataset:
    items: Any = loader.dataset
    if isinstance(items, IterableDataset) or not isinstance(items, Items):
        data, notes = _in_one_process(loader)
        return _adopt_stream(data, form, classes=class_names(items), notes=notes)
    batched = loader.batch_sampler is not None
    say = f"dataset {form.name!r}"
    first: Any = None
    if not batched and length_of(items, name=form.name):
        with their_code(f"{say}: item 0 can't be read", kind=DatasetError):
            first = items[0]
    if first is not None and _is_batch(pair_of(first, say=say)[1]):
        in_order = (items[position] for position in range(len(items)))
        return _adopt_stream(in_order, form, classes=class_names(items))
    positions, notes = _positions(loader, items, form.name)
    if isinstance(items, TensorDataset) and positions is None and not form.preparation.declared:
        return _adopt_arrays(items.tensors, form, notes=notes)
    return MapDataset(
        form.name,
        items,
        collate=loader.collate_fn if batched else None,
        preparation=form.preparation,
        workers=loader.num_workers,
        classes=class_names(items),
        positions=positions,
        bounds=form.bounds,
        notes=notes,
    )


def _positions(
    loader: DataLoader[Any], items: Items, name: str
) -> tuple[Ids | None, tuple[str, ...]]:
    """Returns the positions of the items that a loader takes, ascending; None for all."""
    sampler: Any = loader.sampler
    if isinstance(sampler, SequentialSampler):
        return None, ()
    count = length_of(items, name=name)
    if isinstance(sampler, RandomSampler) and sampler.num_samples == count:
        return None, ("The loader's shuffling changes nothing: ids are positions in its dataset.",)
    with their_code(f"dataset {name!r}: the loader's sampler can't be used", kind=DatasetError):
        taken, again = (sorted(set(sampler)) for _ in range(2))
    if taken != again:
        raise DatasetError(
            f"dataset {name!r}: the loader's sampler takes other items each time, so that the "
            "result can't be repeated: give a Subset of its dataset"
        )
    note = f"The loader's sampler takes {len(taken):,} of {count:,} items, in their order."
    return np.array(taken, dtype=np.int64), (note,)


_END = object()


def _adopt_stream(
    data: Any, form: _InputsForm, *, classes: tuple[str, ...], notes: tuple[str, ...] = ()
) -> Dataset:
    say = f"dataset {form.name!r}"
    digests: list[bytes] = []
    examples = _noted(_examples(data, form, say=say), digests)
    dataset = store_stream(form.name, examples, classes=classes, bounds=form.bounds, notes=notes)
    again = islice(_examples(data, form, say=say), COMPARED)
    found = [digest_of(content, label) for content, label in again]
    # The second pass over a stream that can be read only once is empty.
    if found and found != digests:
        raise DatasetError(f"{say} {NOT_REPEATED}")
    return dataset


def _noted(examples: Iterator[ExamplePair], digests: list[bytes]) -> Iterator[ExamplePair]:
    """Yields the examples, and appends the digests of those to compare."""
    for content, label in examples:
        if len(digests) < COMPARED:
            digests.append(digest_of(content, label))
        yield content, label


def _in_one_process(loader: DataLoader[Any]) -> tuple[DataLoader[Any], tuple[str, ...]]:
    """Returns a loader that yields each example of a stream once, and notes on the change.

    Each worker process yields the whole stream, unless the stream divides itself among them.
    """
    if not isinstance(loader.dataset, IterableDataset) or loader.num_workers == 0:
        return loader, ()
    alone: DataLoader[Any] = DataLoader(
        loader.dataset,
        batch_size=loader.batch_size,
        collate_fn=loader.collate_fn,
        generator=Generator(),  # the global one is the caller's
    )
    note = (
        f"The loader's stream was read by one process, not by {loader.num_workers} workers, each "
        "of which gives all examples unless the stream divides them."
    )
    return alone, (note,)


def _examples(data: Any, form: _InputsForm, *, say: str) -> Iterator[ExamplePair]:
    """Yields input and label of every example in a stream of pairs or of batches."""
    with their_code(f"{say} can't be read", kind=DatasetError):
        stream = iter(data)
    for count in itertools.count():
        each = f"{say}: number {count} of what it gives"
        with their_code(f"{each} can't be read", kind=DatasetError):
            found = next(stream, _END)
        if found is _END:
            return
        given, written = pair_of(found, say=each)
        pairs = zip(given, written, strict=True) if _is_batch(written) else [(given, written)]
        for single, label in pairs:
            yield form.input(single, say=each), as_label(label, say=each)


def _is_batch(written: Any) -> bool:
    return isinstance(written, list | tuple) or (_is_array(written) and written.ndim > 0)


def _from_table(thing: Any) -> Any:
    """Returns the array of a column or a table of pandas; anything else as it is."""
    kind = type(thing)
    is_table = kind.__module__.partition(".")[0] == "pandas" and hasattr(kind, "to_numpy")
    return thing.to_numpy() if is_table else thing


def _is_array(thing: object) -> bool:
    return isinstance(thing, Tensor | np.ndarray)
