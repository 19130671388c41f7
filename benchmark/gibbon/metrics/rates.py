"""Error rates, success rates and agreement, with their denominators.

All functions take arrays with one value for each example.  A rate is a `Share`: a count and its
total.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gibbon.metrics.intervals import Interval, clustered_interval, wilson_interval

Flags = NDArray[np.bool_]
Classes = NDArray[np.int64]


@dataclass(frozen=True)
class Share:
    """``count`` of ``total`` examples.

    >>> Share(1, 4).value, Share(0, 0).value
    (0.25, None)
    """

    count: int
    total: int

    @property
    def value(self) -> float | None:
        """The share as a fraction, or None if the total is 0."""
        return self.count / self.total if self.total else None

    @property
    def interval(self) -> Interval | None:
        """The Wilson 95 % interval, or None if the total is 0."""
        return wilson_interval(self.count, self.total) if self.total else None


@dataclass(frozen=True)
class MeanShare:
    """A mean over examples of the share of wrong answers, with its interval; None without examples.

    >>> mean_share(np.array([0.0, 0.5, 1.0]), draws=20).value
    0.5
    """

    value: float | None
    interval: Interval | None


def mean_share(shares: NDArray[np.float64], *, draws: int, among: Flags | None = None) -> MeanShare:
    """Returns the mean of shares, each of ``draws`` independent draws of one example.

    Args:
        shares: shape (N,), in [0, 1].
        draws: number of draws of each example.
        among: bool, shape (N,): the examples to count; all if None.
    """
    chosen = shares if among is None else shares[among]
    chosen = np.rint(chosen * draws) / draws  # shares are stored in float32
    if not len(chosen):
        return MeanShare(None, None)
    return MeanShare(float(np.mean(chosen)), clustered_interval(chosen, draws=draws))


def share(which: Flags, *, among: Flags | None = None) -> Share:
    """Returns the share of examples marked in ``which``, among those marked in ``among``.

    >>> share(np.array([True, True, False]), among=np.array([True, False, True]))
    Share(count=1, total=2)
    """
    if among is None:
        return Share(int(np.count_nonzero(which)), len(which))
    return Share(int(np.count_nonzero(which & among)), int(np.count_nonzero(among)))


def attack_success(misled: Flags, *, clean_misclassified: Flags) -> Share:
    """Returns the share misclassified under attack among those classified correctly when clean."""
    return share(misled, among=~clean_misclassified)


def same_class(first: Classes, second: Classes, *, among: Flags) -> Share:
    """Returns the share of equal predictions of two models, among the marked examples.

    >>> same_class(np.array([3, 3, 5]), np.array([3, 5, 5]), among=np.array([True, True, False]))
    Share(count=1, total=2)
    """
    return share(first == second, among=among)


def mean(values: NDArray[np.floating], *, among: Flags | None = None) -> float | None:
    """Returns the mean in float64 over the marked examples, or None if there are none.

    >>> mean(np.array([0.5, 1.0], dtype=np.float32), among=np.array([False, True]))
    1.0
    """
    chosen = values if among is None else values[among]
    return float(np.mean(chosen, dtype=np.float64)) if len(chosen) else None
