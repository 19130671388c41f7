"""Queries of a random search asked ahead, with the result of asking one after the other.

A random search tries a change of its best point and keeps it where it helps.  What it tries at a
query hangs on the example and on the number of the query alone, so that several queries may be
asked of an example at once, all from the same point.  The first change that helps is kept; what
was asked after it was asked in vain, and is asked again from the new point.  Late in a search few
changes help, and few examples are left: a batch of several queries each costs little more than
one of a query each.
"""

from __future__ import annotations

import torch
from torch import Tensor

PASS = 32  # rows: what a forward pass costs whatever its size, in small networks on a CPU
FADING = 0.9  # of what was seen, by pass: how often changes help falls as a search goes on


class Pace:
    """How many queries are asked ahead, by how many changes helped of late.

    Args:
        room: rows that a batch may have.
        most: queries of an example that may be asked at once; 1 for one after the other.

    >>> pace = Pace(room=60, most=64)
    >>> pace.ahead(10)
    1
    >>> pace.saw(1000, helped=20)
    >>> pace.ahead(10), pace.ahead(30), pace.ahead(100)
    (6, 2, 1)
    """

    def __init__(self, *, room: int, most: int) -> None:
        self._room, self._most = room, most
        self._tried = self._helped = 1.0  # a search begins with changes that help

    def ahead(self, examples: int) -> int:
        r"""Returns how many queries to ask of each: those that decide most for what they cost.

        With :math:`q` the share of changes that do not help, :math:`k` queries ahead decide
        :math:`1 + q + \dots + q^{k-1}` of them on average.
        """
        stands = 1 - self._helped / self._tried
        decided, chance, best = 0.0, 1.0, 0.0
        for count in range(1, min(self._most, self._room // examples) + 1):
            decided += chance
            chance *= stands
            speed = decided / (PASS + count * examples)
            if speed <= best:
                return count - 1
            best = speed
        return max(1, min(self._most, self._room // examples))

    def saw(self, tried: int, *, helped: int) -> None:
        """Notes how many changes were tried in a pass, and how many of them helped."""
        self._tried = FADING * self._tried + tried
        self._helped = FADING * self._helped + helped


def upcoming(turns: Tensor, *, count: int, ahead: int) -> tuple[Tensor, Tensor]:
    """Returns the next queries of each example, at most so many: whose they are, and which.

    Both are int64, shape (R,), one example after the other.

    Args:
        turns: int64, shape (M,): the next query of each example.
        count: the number of queries; examples that are there have none to come.
        ahead: how many of each example at most.

    >>> upcoming(torch.tensor([4, 1, 5]), count=5, ahead=2)
    (tensor([0, 1, 1]), tensor([4, 1, 2]))
    """
    waiting = (turns < count).nonzero()
    numbers = turns[waiting] + torch.arange(ahead, device=turns.device)
    examples = waiting.expand_as(numbers).flatten()
    numbers = numbers.flatten()
    there = (numbers < count).nonzero().flatten()
    if len(there) < len(numbers):
        examples, numbers = examples[there], numbers[there]
    return examples, numbers


def leading(examples: Tensor) -> Tensor:
    """Returns where each run of equal numbers begins, int64.

    >>> leading(torch.tensor([0, 0, 3, 5, 5]))
    tensor([0, 2, 3])
    """
    begins = torch.ones_like(examples, dtype=torch.bool)
    torch.ne(examples[1:], examples[:-1], out=begins[1:])
    return begins.nonzero().flatten()
