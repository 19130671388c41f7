"""Several tries of each example abreast in one batch, with the result of one after the other.

Few examples in a batch keep the hardware waiting, and an attack with nine targets asks for nine
such batches in a row.  Abreast, a batch has all examples of the first try, then all of the second,
and so on: rows of the number tries times examples.  One after the other, an example that a try
misled is not tried again.  So it is here: its later tries leave the batch at that moment and count
for nothing, its earlier ones go on.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import TypeVar

import torch
from torch import Tensor

from gibbon.models.classifier import Classifier

T = TypeVar("T")


def abreast(tries: Iterator[T], classifier: Classifier, *, examples: int) -> list[T]:
    """Returns the next tries that go into one batch, at least one unless there are none.

    Together they have fewer rows than a full batch, which bounds the memory; as many rows as the
    batch under attack has would be taken for its own first gradient (`Classifier.watching`).
    """
    return list(islice(tries, max(1, (classifier.room - 1) // examples)))


def leaving(rows: Tensor, done: Tensor, *, examples: int) -> Tensor:
    """Says which rows leave the batch, bool: those done, and the later tries of their examples.

    Args:
        rows: int64, shape (M,): the numbers of the rows that still take part.
        done: bool, shape (M,): which of them have succeeded.
        examples: how many examples each try has.

    >>> leaving(torch.arange(6), torch.tensor([0, 0, 1, 0, 0, 0]).bool(), examples=2)
    tensor([False, False,  True, False,  True, False])
    """
    first = rows.new_full((examples,), torch.iinfo(rows.dtype).max)
    numbers, owners = rows // examples, rows % examples
    first.scatter_reduce_(0, owners[done], numbers[done], "amin")
    return done | (numbers > first[owners])
