"""Quantiles and error curves of the smallest adversarial distances of a set of examples.

A distance is NaN if no adversarial example was found.  It counts as infinite, so that an attack
that fails on hard examples does not look strong.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import numpy as np
from numpy.typing import NDArray

Distances = NDArray[np.float32]

MEDIAN: Final = Fraction(1, 2)
TENTH: Final = Fraction(1, 10)
NINE_TENTHS: Final = Fraction(9, 10)


@dataclass(frozen=True)
class Curve:
    """The share of examples with an adversarial example within ε, as a function of ε.

    It rises at each of ``epsilons`` (float32, ascending) to the value of ``errors`` there, and is
    constant between them; below the first it is 0.
    """

    epsilons: Distances
    errors: NDArray[np.float64]

    def at(self, epsilon: float) -> float:
        """Returns the error at one epsilon; see `error_within`."""
        place = int(np.searchsorted(self.epsilons, np.float32(epsilon), side="right"))
        return float(self.errors[place - 1]) if place else 0.0


def error_within(nearest: Distances, epsilon: float) -> float | None:
    """Returns the share of examples whose distance is at most epsilon; None if there are none.

    Epsilon is rounded to float32 first, the type of the distances.

    >>> error_within(np.array([0.0, 0.1, 0.3, np.nan], dtype=np.float32), 0.1)
    0.5
    """
    if not len(nearest):
        return None
    return float(np.count_nonzero(nearest <= np.float32(epsilon)) / len(nearest))


def error_curve(nearest: Distances) -> Curve:
    """Returns the error as a function of ε.

    >>> curve = error_curve(np.array([0.5, 0.25, np.nan, 0.5], dtype=np.float32))
    >>> curve.epsilons.tolist(), curve.errors.tolist()
    ([0.25, 0.5], [0.25, 0.75])
    """
    epsilons, counts = np.unique(nearest[np.isfinite(nearest)], return_counts=True)
    return Curve(epsilons, np.cumsum(counts) / max(len(nearest), 1))


def quantile(nearest: Distances, at: Fraction) -> float | None:
    """Returns a quantile over all examples; None if it is infinite or there are no examples.

    It is the lower order statistic, which is a measured distance; nothing is interpolated.

    >>> distances = np.array([0.5, 0.25, np.nan, 0.125], dtype=np.float32)
    >>> quantile(distances, MEDIAN), quantile(distances, NINE_TENTHS)
    (0.25, 0.5)
    >>> quantile(distances[2:], NINE_TENTHS), quantile(distances[2:3], TENTH)
    (0.125, None)
    """
    if not len(nearest):
        return None
    ordered = np.sort(np.where(np.isnan(nearest), np.inf, nearest))
    value = float(ordered[math.floor(at * (len(ordered) - 1))])
    return value if math.isfinite(value) else None
