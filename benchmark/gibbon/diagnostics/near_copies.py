"""Finds examples that are nearly equal to an earlier one, such as a picture that was stored again.

Inputs are projected on a few random directions, which keeps their distances but for some percent
(W. B. Johnson and J. Lindenstrauss, "Extensions of Lipschitz mappings into a Hilbert space", 1984).
Copies that were compressed again, or that noise was added to, are at a few hundredths of the usual
distance of two examples, and of the contrast of the picture itself.  The nearest two of 4,000
examples of MNIST are at 0.12 of it, of 2,000 of CIFAR-10 at 0.21.  Data of few degrees of freedom,
such as plain colours, have examples at any distance: there nothing is a copy.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float32]

DIRECTIONS, SEED = 64, 0
NEAR = 0.06  # of the usual distance of two examples
OWN = 0.25  # of a picture's distance from its own mean: dark ones with a few dots are no copies
NOT_NEAR = 0.15  # between both, honest data have examples too
BETWEEN_SHARE = 0.1  # of the copies: so many examples between both are no gap
COMPARED = 2_000  # examples that are compared with all earlier ones
FEWEST = 8  # examples
BLOCK = 256  # examples compared at once


@dataclass
class Projections:
    """Inputs on a few random directions, one row an example in the order that they were added.

    Attributes:
        rows: float32, shape (N, directions).
        contrasts: float32, shape (N,): the distance of each input from its own mean, on these.
    """

    rows: list[Rows] = field(default_factory=list)
    contrasts: list[Rows] = field(default_factory=list)
    _directions: Rows | None = None

    def add(self, inputs: NDArray[np.floating]) -> None:
        """Adds inputs, shape (N, ...)."""
        flat = inputs.reshape(len(inputs), -1).astype(np.float32)
        if self._directions is None:
            shape = (flat.shape[1], DIRECTIONS)
            self._directions = np.random.default_rng(SEED).standard_normal(shape, np.float32)
        self.rows.append(flat @ self._directions)
        spread = np.linalg.norm(flat - flat.mean(1, keepdims=True), axis=1)
        self.contrasts.append(np.asarray(DIRECTIONS**0.5 * spread, np.float32))


@dataclass(frozen=True)
class NearCopies:
    """The examples that are nearly equal to an earlier one.

    Args:
        places: their positions, and that of the nearest earlier example of each.
        compared: number of examples that were compared with earlier ones.
    """

    places: tuple[tuple[int, int], ...]
    compared: int


def near_copies(projections: Projections) -> NearCopies:
    """Returns the near copies among examples whose inputs are all different."""
    if sum(map(len, projections.rows)) < FEWEST:
        return NearCopies((), 0)
    rows = np.concatenate(projections.rows).astype(np.float32)
    rows -= rows.mean(0)
    count = len(rows)
    usual = _usual(rows)
    chosen = np.arange(0, count, -(-count // COMPARED))
    if not usual > 0:
        return NearCopies((), len(chosen))
    places, between = list[tuple[int, int]](), 0
    squares = np.square(rows).sum(1)
    contrasts = np.concatenate(projections.contrasts)
    for start in range(0, len(chosen), BLOCK):
        some = chosen[start : start + BLOCK]
        distance = squares[some, None] + squares[None] - 2 * (rows[some] @ rows.T)
        distance[np.arange(count)[None] >= some[:, None]] = np.inf  # earlier ones alone
        nearest = distance.argmin(1)
        least = np.maximum(distance[np.arange(len(some)), nearest], 0.0)
        distinct = least > np.square(OWN * np.minimum(contrasts[some], contrasts[nearest]))
        least /= usual**2
        near = (least <= NEAR**2) & ~distinct
        between += int(np.count_nonzero(~near & (least <= NOT_NEAR**2)))
        places += zip(some[near].tolist(), nearest[near].tolist(), strict=True)
    if between > BETWEEN_SHARE * len(places):
        places = []
    return NearCopies(tuple(places), len(chosen))


def _usual(rows: Rows) -> float:
    """Returns the median distance of two examples, over pairs at many offsets."""
    offsets = sorted({max(1, len(rows) * part // 16) for part in range(1, 9)})
    distances = [np.linalg.norm(rows - np.roll(rows, each, axis=0), axis=1) for each in offsets]
    return float(np.median(np.concatenate(distances)))
