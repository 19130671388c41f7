r"""Noise that belongs to no class: ``rubbish:gaussian`` and ``rubbish:uniform``.

- ``gaussian``: :math:`N(0, I)`, each coordinate standard normal.  As in the paper it is not clipped
  to the bounds of the inputs: of inputs in [0, 1] about half of the coordinates are negative.
- ``uniform``: each coordinate uniform in the bounds.

A draw depends on the seed, its id and the shape alone, not on the number of draws, the batch size
or the order in which they are made.

Source: Goodfellow, Shlens and Szegedy, "Explaining and harnessing adversarial examples", ICLR 2015,
appendix A; https://arxiv.org/abs/1412.6572
"""

from __future__ import annotations

import hashlib
from functools import cached_property
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from gibbon.core.errors import SpecError, suggest
from gibbon.core.rng import ExampleStreams, derive_key
from gibbon.core.threat import PIXEL_BOUNDS, Bounds
from gibbon.datasets.base import Batch, Dataset, DatasetInfo
from gibbon.datasets.without_classes import no_labels
from gibbon.specs.naming import RUBBISH

Distribution = Literal["gaussian", "uniform"]
DEFAULT_COUNT = 10_000  # as many as appendix A draws
RUBBISH_VERSION = 1  # goes up when the draws change
NOTES = {
    "gaussian": "{} draws of N(0, I), seed {}, not clipped to the bounds of the inputs.",
    "uniform": "{} draws, uniform in [{}], seed {}.",
}


class Rubbish(Dataset):
    """Draws from a distribution, of no class.

    Args:
        name: name in tables and messages.
        distribution: ``gaussian`` or ``uniform``.
        shape: shape of one draw.
        count: number of draws.
        bounds: bounds of the models' inputs.
        seed: seed of the draws.

    >>> noise = Rubbish("noise", "uniform", shape=(2,), count=3, bounds=Bounds(-1.0, 1.0))
    >>> bool(noise.batch(np.array([0, 2])).inputs.abs().max() <= 1), noise.labels.tolist()
    (True, [-1, -1, -1])
    """

    def __init__(
        self,
        name: str,
        distribution: Distribution,
        *,
        shape: tuple[int, ...],
        count: int = DEFAULT_COUNT,
        bounds: Bounds = PIXEL_BOUNDS,
        seed: int = 0,
    ) -> None:
        self.distribution, self._key = distribution, derive_key(seed, "rubbish", distribution)
        box = f"{bounds.low:g}, {bounds.high:g}"
        given = (f"{count:,}", seed) if distribution == "gaussian" else (f"{count:,}", box, seed)
        self.info = DatasetInfo(
            name,
            no_labels(count),
            classes=(),
            input_shape=shape,
            bounds=bounds,
            partial=True,
            notes=(NOTES[distribution].format(*given),),
            no_class=True,
            bounded=distribution == "uniform",
        )

    @cached_property
    def digest(self) -> str:
        """SHA-256 over everything that the draws depend on, and their number."""
        bounds = (self.bounds.low, self.bounds.high) if self.info.bounded else ()
        parts = (RUBBISH_VERSION, self.distribution, self._key, self.input_shape, len(self), bounds)
        return hashlib.sha256(repr(parts).encode()).hexdigest()

    def batch(self, ids: NDArray[np.int64]) -> Batch:
        """Returns the draws with these ids.  Raises `DatasetError` if there is no such id."""
        self.info.check_ids(ids)
        taken = torch.from_numpy(ids.astype(np.int64))
        streams = ExampleStreams.derive(self._key, taken)
        if self.distribution == "gaussian":
            inputs = streams.normal(self.input_shape)
        else:
            # The largest number below 1 times the width may round to the upper bound, not above.
            width = self.bounds.high - self.bounds.low
            inputs = streams.uniform(self.input_shape).mul_(width).add_(self.bounds.low)
            inputs.clamp_(self.bounds.low, self.bounds.high)
        return Batch(taken, inputs, torch.from_numpy(self.labels[ids]))


def distribution_of(source: str, *, where: str = "") -> Distribution:
    """Returns the distribution that a source such as ``rubbish:gaussian`` names.

    Raises `SpecError` for any other.
    """
    given, known = source.removeprefix(RUBBISH), get_args(Distribution)
    for each in known:
        if given == each:
            found: Distribution = each
            return found
    raise SpecError(
        f"unknown noise {source!r}{suggest(given, known)} Known: "
        f"{', '.join(f'{RUBBISH}{each}' for each in known)}",
        where=where,
    )
