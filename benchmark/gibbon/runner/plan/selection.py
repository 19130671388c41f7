"""Checks a dataset before anything is computed, and selects the examples to evaluate."""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from gibbon.core.errors import DatasetError
from gibbon.core.plain_tensors import plain, plain_copy
from gibbon.datasets.base import Batch, Dataset, sample_ids
from gibbon.runner.plan.code_digest import PACKAGE
from gibbon.runner.plan.probe_model import probe_ids
from gibbon.runner.run_progress.progress import Progress

# Numbers in one batch of inputs if no batch size is given: those of 1,000 MNIST pictures, with
# which FGSM at five epsilons takes at most a tenth longer than its passes alone.
DEFAULT_BATCH_NUMBERS = 1000 * 28 * 28
SMALLEST_DEFAULT_BATCH = 16
NAMED = 10  # unreadable examples that a sentence names


@dataclass(frozen=True)
class Selection:
    """The examples of a dataset that are evaluated.

    Args:
        ids: int64, shape (N,).
        sample: the examples that models are probed on.
        skipped: reasons why others were left out, a sentence for each.
    """

    ids: NDArray[np.int64]
    sample: Batch
    skipped: tuple[str, ...] = ()


def select(
    dataset: Dataset, *, limit: int | None, skip_unreadable: bool, progress: Progress
) -> Selection:
    """Returns the examples to evaluate, all of which can be read.

    Raises `DatasetError` if some can't be read and must not be skipped, if none is left, or if the
    dataset breaks its contract.
    """
    _check_labels(dataset)
    ids = sample_ids(dataset, limit)
    nothing = np.empty(0, dtype=np.int64)
    wanted = np.union1d(ids, probe_ids(dataset, unreadable=nothing))
    bad = dataset.unreadable(
        wanted,
        progress=lambda count: progress.checking(count, of=len(wanted), dataset=dataset.name),
    )
    lost = np.array(sorted(bad), dtype=np.int64)
    skipped = np.intersect1d(ids, lost)
    if len(skipped) > 0 and not skip_unreadable:
        raise DatasetError(_named(dataset, bad, skipped))
    left = ids[~np.isin(ids, lost)]
    if len(left) == 0:
        raise DatasetError(
            f"dataset {dataset.name!r}: nothing is left: none of {len(ids)} examples can be read, "
            f"the first because: {bad[int(skipped[0])]}"
        )
    probed = probe_ids(dataset, unreadable=lost)
    if len(probed) == 0:
        probed = left[:1]
    sample = read_batch(dataset, probed)
    _check_sample(dataset, probed, sample)
    return Selection(left, sample, tuple(bad[int(each)] for each in skipped))


def default_batch_size(dataset: Dataset) -> int:
    """Returns the number of examples in one pass if no batch size is given."""
    fitting = DEFAULT_BATCH_NUMBERS // max(1, math.prod(dataset.input_shape))
    return max(SMALLEST_DEFAULT_BATCH, fitting)


def _named(dataset: Dataset, bad: Mapping[int, str], ids: NDArray[np.int64]) -> str:
    first = "\n".join(f"  {bad[int(each)]}" for each in ids[:NAMED])
    more = f"\n  and {len(ids) - NAMED} more" if len(ids) > NAMED else ""
    return (
        f"dataset {dataset.name!r}: {len(ids)} examples can't be read; mend or remove them, or "
        f"leave them out with --skip-unreadable:\n{first}{more}"
    )


def _check_labels(dataset: Dataset) -> None:
    if len(dataset) == 0:
        raise DatasetError(f"dataset {dataset.name!r} is empty")
    if dataset.info.no_class:
        return
    low, high, classes = int(dataset.labels.min()), int(dataset.labels.max()), len(dataset.classes)
    # The classes of a partial dataset are the model's, which is not loaded yet.
    wrong = (dataset.labels < 0) | ((dataset.labels >= classes) & (not dataset.partial))
    if wrong.any():
        first = int(np.flatnonzero(wrong)[0])
        expected = "at least 0" if dataset.partial else f"0 to {classes - 1}"
        raise DatasetError(
            f"dataset {dataset.name!r}: labels must be {expected}, got {low} to {high}: the first "
            f"is {dataset.labels[first]} (example {first})"
        )


def _check_sample(dataset: Dataset, ids: NDArray[np.int64], batch: Batch) -> None:
    bounds = dataset.bounds
    for what, expected, came in [
        ("inputs", torch.float32, batch.inputs.dtype),
        ("labels", torch.int64, batch.labels.dtype),
        ("a batch's shape", (len(ids), *dataset.input_shape), tuple(batch.inputs.shape)),
    ]:
        if expected != came:
            raise DatasetError(f"dataset {dataset.name!r}: {what} must be {expected}, got {came}")
    given = np.array_equal(batch.ids.numpy(), ids)
    if not given or not np.array_equal(batch.labels.numpy(), dataset.labels[ids]):
        raise DatasetError(
            f"dataset {dataset.name!r}: a batch must hold the requested examples, in "
            "their order, with their labels"
        )
    if not dataset.info.bounded:
        return
    least, most = float(batch.inputs.min()), float(batch.inputs.max())
    if not (bounds.low <= least and most <= bounds.high):  # NaN is not in any box either
        raise DatasetError(
            f"dataset {dataset.name!r}: inputs must be in [{bounds.low:g}, {bounds.high:g}], "
            f"got [{least:g}, {most:g}]"
        )


def read_batches(
    dataset: Dataset, chunks: Sequence[NDArray[np.int64]]
) -> Generator[Batch, None, None]:
    """Yields a batch for each array of ids, and closes the dataset's own stream in the end.

    Raises `DatasetError` if the dataset gives other examples.
    """
    with closing(_stream(dataset, chunks)) as stream:
        for chunk in chunks:
            batch = next(stream, None)
            batch = None if batch is None else _own(dataset, batch)
            if batch is None or not np.array_equal(batch.ids.cpu().numpy(), chunk):
                raise DatasetError(
                    f"dataset {dataset.name!r}: batches() must give the requested examples, "
                    "in that order"
                )
            if not _is_ours(dataset):
                _check_sample(dataset, chunk, batch)
            yield batch


def read_batch(dataset: Dataset, ids: NDArray[np.int64]) -> Batch:
    """Returns the examples of these ids as plain tensors.  Raises `DatasetError`."""
    return _own(dataset, dataset.batch(ids))


def _own(dataset: Dataset, batch: Batch) -> Batch:
    """Returns a batch of plain tensors, with memory of their own.

    Our datasets make a new tensor for each batch, of numbers that are no negative zeros.
    """
    if _is_ours(dataset):
        return batch
    parts = []
    for name in ("ids", "inputs", "labels"):
        what = f"dataset {dataset.name!r}: {name} of a batch"
        value: object = getattr(batch, name, None)
        parts.append(plain_copy(plain(value, what=what, problem=DatasetError)).cpu())
    return Batch(*parts)


def _is_ours(dataset: Dataset) -> bool:
    return type(dataset).__module__.partition(".")[0] == PACKAGE


def _stream(dataset: Dataset, chunks: Sequence[NDArray[np.int64]]) -> Generator[Batch, None, None]:
    yield from dataset.batches(chunks)  # which need not be a generator
