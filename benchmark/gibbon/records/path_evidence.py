"""Evidence from the passes that an attack makes, one number an example.

The measures are those of M. Pintor et al., "Indicators of attack failure: debugging and improving
optimization of adversarial examples", NeurIPS 2022, https://arxiv.org/abs/2106.09947.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Counts = NDArray[np.int32]


@dataclass(frozen=True)
class PathEvidence:
    """The path of an attack for each example; every array has shape (N,).

    A *run* is a restart, a member of a list, or one target of several.  NaN stands for "not known".

    Args:
        start_margin: float32: the margin of the best wrong class over the true one at the first
            point.
        start_distance: float32: the distance of the first point from the input, roughly.
        best_margin: float32: the largest margin at any point.
        success_distance: float32: the least distance of a misclassified point within the box, for
            a search of the nearest; for other attacks epsilon, if a point within box and budget was
            misclassified; infinite if there is none.
        success_at: int32: gradients of its run that were taken before the first success; -1 if
            there is none, or if it is not known which calls were about the example.
        steps: int32: gradients of the longest run without a success; 0 if there is none.
        pace: float32: the distance from the start of such a run, divided by the number of
            gradients, roughly.
        rise: float32: the increase of the best margin in these runs, summed.
        late_rise: float32: the part of it in the last quarter of the gradients of each run.
        zero_share: float32: the share of the gradients that were zero, NaN or infinite at a
            correctly classified point.
    """

    start_margin: Floats
    start_distance: Floats
    best_margin: Floats
    success_distance: Floats
    success_at: Counts
    steps: Counts
    pace: Floats
    rise: Floats
    late_rise: Floats
    zero_share: Floats

    @classmethod
    def unknown(cls, count: int) -> PathEvidence:
        """Returns evidence with every value unknown, for ``count`` examples."""
        arrays: dict[str, Any] = {
            name: np.full(count, value).astype(PATH_ARRAYS[name])
            for name, value in _NOTHING.items()
        }
        return cls(**arrays)

    def then(self, more: PathEvidence) -> PathEvidence:
        """Returns this evidence followed by that of more examples."""
        return PathEvidence(
            **{
                name: np.concatenate([getattr(self, name), getattr(more, name)])
                for name in PATH_ARRAYS
            }
        )

    def taken(self, rows: NDArray[np.int64]) -> PathEvidence:
        """Returns the evidence of the examples in these rows, in their order."""
        return PathEvidence(**{name: getattr(self, name)[rows] for name in PATH_ARRAYS})

    def with_more(self, rows: NDArray[np.int64], more: PathEvidence) -> PathEvidence:
        """Returns the evidence joined with that of another attack on the examples in ``rows``."""
        joined: dict[str, Any] = {}
        for name in PATH_ARRAYS:
            values = getattr(self, name).copy()
            values[rows] = _JOINED[name](values[rows], getattr(more, name))
            joined[name] = values
        return PathEvidence(**joined)


def _known(before: NDArray[Any], now: NDArray[Any]) -> NDArray[Any]:
    return np.where(np.isnan(before), now, before)


def _first(before: NDArray[Any], now: NDArray[Any]) -> NDArray[Any]:
    return np.where(before >= 0, before, now)


#: The arrays and their types.
PATH_ARRAYS: Final = {
    each.name: np.int32 if each.name in ("success_at", "steps") else np.float32
    for each in fields(PathEvidence)
}

_NOTHING: Final[dict[str, float]] = {
    "start_margin": np.nan,
    "start_distance": np.nan,
    "best_margin": -np.inf,
    "success_distance": np.inf,
    "success_at": -1,
    "steps": 0,
    "pace": np.nan,
    "rise": 0.0,
    "late_rise": 0.0,
    "zero_share": np.nan,
}

_JOINED: Final[dict[str, Callable[[NDArray[Any], NDArray[Any]], NDArray[Any]]]] = {
    "start_margin": _known,
    "start_distance": _known,
    "best_margin": np.fmax,
    "success_distance": np.fmin,
    "success_at": _first,
    "steps": np.maximum,
    "pace": np.fmax,
    "rise": np.add,
    "late_rise": np.add,
    "zero_share": np.fmax,
}
