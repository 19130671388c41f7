"""Shards: equal parts of the examples of every dataset, each computed by a run of its own."""

from __future__ import annotations

import re
from dataclasses import dataclass

from gibbon.core.errors import SpecError

EXPECTED = "I/N with I from 1 to N, such as 2/4"
MOST = 1_000_000  # shards of a run


@dataclass(frozen=True)
class Shard:
    """A part of a run: ``index``, from 1, of ``count`` parts.

    The parts are contiguous, so that they are read and batched as in one run, and differ by at most
    one example; those with more come first.

    Raises `SpecError` if there is no such part.
    """

    index: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.count <= MOST:
            raise SpecError(f"there must be 1 to {MOST:,} shards, got {self.count}", where="shard")
        if not 1 <= self.index <= self.count:
            raise SpecError(
                f"expected {EXPECTED}: of {self.count} there is no shard {self.index}",
                where="shard",
            )

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Returns the shard that a text names.  Raises `SpecError`.

        >>> Shard.parse("2/4")
        Shard(index=2, count=4)
        """
        found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text.strip())
        if found is None:
            raise SpecError(f"expected {EXPECTED}, got {text!r}", where="shard")
        return cls(int(found[1]), int(found[2]))

    def part(self, examples: int) -> slice:
        """Returns the positions of the shard among so many examples; none if there are too few.

        >>> [Shard(each, 3).part(7) for each in (1, 2, 3)]
        [slice(0, 3, None), slice(3, 5, None), slice(5, 7, None)]
        """
        size, more = divmod(examples, self.count)
        start = (self.index - 1) * size + min(self.index - 1, more)
        return slice(start, start + size + (self.index <= more))

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"
