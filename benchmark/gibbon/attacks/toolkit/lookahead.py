"""Speculative queries of a random search, with the result of one query after another.

A random search tries a change of its best point and keeps it if it improves.  The change tried at a
query depends on the example and on the number of the query only, so that several queries of an
example can go into one batch, all from the same best point.  The first change that improves is
kept; the queries after it are wasted and are made again from the new point.  Late in a search few
changes improve and few examples are left: a batch with several queries of each costs little more
than a batch with one.
"""

from __future__ import annotations

import torch
from torch import Tensor

PASS_OVERHEAD = 32  # rows: the fixed cost of a forward pass, in small networks on a CPU
FORGETTING = 0.9  # by pass, of the counts: the rate of improvements falls as a search goes on


class Lookahead:
    """Chooses how many queries of an example go into one batch, by the recent rate of improvement.

    Args:
        room: rows that a batch may have.
        most: queries of an example in one batch at most; 1 for one after another.

    >>> lookahead = Lookahead(room=60, most=64)
    >>> lookahead.depth(10)
    1
    >>> lookahead.update(1000, improved=20)
    >>> lookahead.depth(10), lookahead.depth(30), lookahead.depth(100)
    (6, 2, 1)
    """

    def __init__(self, *, room: int, most: int) -> None:
        self._room, self._most = room, most
        self._tried = self._improved = 1.0  # the first changes of a search improve

    @property
    def is_off(self) -> bool:
        """Whether each batch has one query of an example."""
        return self._most == 1

    def depth(self, examples: int) -> int:
        r"""Returns the number of queries of each example that decides most for its cost.

        With :math:`q` the share of changes that do not improve, :math:`k` queries decide
        :math:`1 + q + \dots + q^{k-1}` of them on average.
        """
        share = 1 - self._improved / self._tried
        largest = min(self._most, self._room // examples)
        decided, chance, best = 0.0, 1.0, 0.0
        for count in range(1, largest + 1):
            decided += chance
            chance *= share
            speed = decided / (PASS_OVERHEAD + count * examples)
            if speed <= best:
                return count - 1
            best = speed
        return max(1, largest)

    def update(self, tried: int, *, improved: int) -> None:
        """Notes how many changes a pass tried, and how many of them improved."""
        self._tried = FORGETTING * self._tried + tried
        self._improved = FORGETTING * self._improved + improved


def next_queries(following: Tensor, *, count: int, depth: int) -> tuple[Tensor, Tensor]:
    """Returns the next queries of each example: the examples' positions and the queries' numbers.

    Both are int64, shape (R,), one example after another.

    Args:
        following: int64, shape (M,): the number of each example's next query.
        count: the number of queries; an example whose next query is ``count`` has none left.
        depth: queries of each example at most.

    >>> next_queries(torch.tensor([4, 1, 5]), count=5, depth=2)
    (tensor([0, 1, 1]), tensor([4, 1, 2]))
    """
    waiting = (following < count).nonzero()
    numbers = following[waiting] + torch.arange(depth, device=following.device)
    examples = waiting.expand_as(numbers).flatten()
    numbers = numbers.flatten()
    valid = (numbers < count).nonzero().flatten()
    if len(valid) < len(numbers):
        examples, numbers = examples[valid], numbers[valid]
    return examples, numbers


def run_starts(examples: Tensor) -> Tensor:
    """Returns the position at which each run of equal numbers begins, int64.

    >>> run_starts(torch.tensor([0, 0, 3, 5, 5]))
    tensor([0, 2, 3])
    """
    begins = torch.ones_like(examples, dtype=torch.bool)
    torch.ne(examples[1:], examples[:-1], out=begins[1:])
    return begins.nonzero().flatten()
