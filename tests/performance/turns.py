"""Timing several pieces of work in turns, so that what disturbs a machine disturbs all of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

Clock = Callable[[], float]
Work = Callable[[], Sequence[float]]

LEAST_ROUNDS = 3
MOST_ROUNDS = 41
# Work that takes so long in its first round has no need of a round to warm up in.
LONG = 3.0


@dataclass(frozen=True)
class Contestant:
    """Who does a piece of work, and the work, which returns the errors that it found."""

    who: str
    work: Work


@dataclass(frozen=True)
class Timing:
    """What one contestant took in each round, and the errors that it found in the last one."""

    seconds: tuple[float, ...]
    errors: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


@dataclass(frozen=True)
class Spread:
    """A ratio taken round by round: its median, and its quartiles."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, one: Timing, other: Timing) -> Spread:
        """How many times as long the first took as the second, each round by itself."""
        ratios = [a / b for a, b in zip(one.seconds, other.seconds, strict=True)]
        if len(ratios) == 1:
            return cls(*ratios * 3)
        low, median, high = statistics.quantiles(ratios, n=4, method="inclusive")
        return cls(median, low, high)


def take_turns(
    contestants: Sequence[Contestant],
    *,
    seconds: float,
    least: int = LEAST_ROUNDS,
    clock: Clock = time.perf_counter,
) -> dict[str, Timing]:
    """Returns by name what each took, in as many rounds as fit into about so many seconds.

    In each round everyone works once, and somebody else begins.  The first round warms up, and
    counts where it was long.

    Args:
        contestants: who works; the names differ.
        seconds: how long all of it may take.
        least: how many rounds are played however long they take.
        clock: what is read before and after: the time on the wall, or ``time.process_time``, which
            on a busy machine tells the same tale for one thread.
    """
    times: dict[str, list[float]] = {each.who: [] for each in contestants}
    errors: dict[str, tuple[float, ...]] = {}

    def play(order: Sequence[Contestant]) -> None:
        for each in order:
            started = clock()
            found = each.work()
            times[each.who].append(clock() - started)
            errors[each.who] = tuple(found)

    play(contestants)
    took = sum(taken[0] for taken in times.values())
    if took < LONG:
        for taken in times.values():
            taken.clear()
    wanted = min(MOST_ROUNDS, max(least, round(seconds / took)))
    while len(times[contestants[0].who]) < wanted:
        first = len(times[contestants[0].who]) % len(contestants)
        play([*contestants[first:], *contestants[:first]])
    return {who: Timing(tuple(taken), errors[who]) for who, taken in times.items()}
