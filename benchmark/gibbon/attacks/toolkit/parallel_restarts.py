"""Batched restarts: several runs of each example in one batch, with the result of a sequence.

Few examples in a batch leave the hardware idle, and an attack with nine targets makes nine such
batches in sequence.  A batch of several runs holds all examples of the first run, then all of the
second, and so on.  In a sequence, an example that one run misclassifies is not tried by later runs.
So it is here: its rows of later runs leave the batch at that moment and are discarded, those of
earlier runs go on.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import TypeVar

import torch
from torch import Tensor

from gibbon.models.classifier import Classifier

T = TypeVar("T")


def next_group(runs: Iterator[T], classifier: Classifier, *, examples: int) -> list[T]:
    """Returns the next runs that go into one batch, at least one unless there are none.

    Together they have fewer rows than a full batch, which bounds the memory.  A group of as many
    rows as the batch under attack would be taken for its first gradient (`Classifier.watching`).
    """
    return list(islice(runs, max(1, (classifier.room - 1) // examples)))


def rows_leaving(rows: Tensor, done: Tensor, *, examples: int) -> Tensor:
    """Returns which rows leave the batch, bool: those done, and their examples' later runs.

    Args:
        rows: int64, shape (M,): the numbers of the rows that still take part.
        done: bool, shape (M,): which of them have succeeded.
        examples: how many examples each run has.

    >>> rows_leaving(torch.arange(6), torch.tensor([0, 0, 1, 0, 0, 0]).bool(), examples=2)
    tensor([False, False,  True, False,  True, False])
    """
    first = rows.new_full((examples,), torch.iinfo(rows.dtype).max)
    runs, owners = rows // examples, rows % examples
    first.scatter_reduce_(0, owners[done], runs[done], "amin")
    return done | (runs > first[owners])
