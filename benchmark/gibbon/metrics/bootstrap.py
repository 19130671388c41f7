r"""Bootstrap intervals of means and quantiles: BCa, bias-corrected and accelerated.

With :math:`\hat\theta` the estimate, :math:`\theta^*` its values in samples of the examples with
replacement, and :math:`\hat\theta_{(i)}` its value without example i, the ends of the interval are
the quantiles of :math:`\theta^*` at

.. math::
    \alpha_{1, 2} &= \Phi\left(z_0 + \frac{z_0 + z}{1 - a (z_0 + z)}\right), \quad
    z = \Phi^{-1}\bigl((1 \mp c) / 2\bigr) \\
    z_0 &= \Phi^{-1}\bigl(P(\theta^* < \hat\theta) + P(\theta^* = \hat\theta) / 2\bigr), \quad
    a = \frac{\sum_i d_i^3}{6 (\sum_i d_i^2)^{3/2}}, \quad
    d_i = \frac{1}{n} \sum_j \hat\theta_{(j)} - \hat\theta_{(i)}

`Bootstrap.mean` draws the samples from a seed.  `quantile_interval` needs no draws: the bootstrap
distribution of an order statistic is known exactly.

Sources: B. Efron, "Better bootstrap confidence intervals", Journal of the American Statistical
Association 82, 1987; of a median, B. Efron, "Bootstrap methods: another look at the jackknife",
The Annals of Statistics 7, 1979, section 3.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from gibbon.core.errors import RequestError
from gibbon.metrics.intervals import Interval

Values = NDArray[np.float64]

BOOTSTRAP_SEED = 0  # equal for all runs: an interval changes with the outcomes alone
RESAMPLES = 1000  # Efron (1987), section 7, takes as many
FEWEST = 2  # examples without which there is no spread
ROUNDING = 1e-6  # of a mean of float32 numbers
KEPT = 20_000_000  # numbers of samples that are kept between calls: 80 MB

NORMAL = NormalDist()


@dataclass(frozen=True)
class Bootstrap:
    """Samples with replacement of a set of examples, the same for every statistic.

    Args:
        examples: number of examples, n.
        seed: of the draws.
        resamples: number of samples.
    """

    examples: int
    seed: int
    resamples: int = RESAMPLES

    def __post_init__(self) -> None:
        if self.examples < 0 or self.resamples < 1:
            raise RequestError(f"no {self.resamples} samples of {self.examples} examples")

    def mean(
        self,
        values: NDArray[np.floating],
        *,
        among: NDArray[np.bool_] | None = None,
        confidence: float = 0.95,
    ) -> Interval | None:
        """Returns the BCa interval of the mean over the marked examples, of all if None.

        All examples are drawn, so that the number of marked ones varies too; a sample without a
        marked example has no mean and is left out.

        Args:
            values: shape (n,); those of examples that are not marked are ignored.
            among: shape (n,): the marked examples.
            confidence: the share of intervals that hold the true mean.

        Returns None for fewer than two marked examples.  Raises `RequestError` for another number
        of values.

        >>> values = np.array([0.2, 0.4, 0.5, 0.7, 0.9])
        >>> interval = Bootstrap(5, seed=0).mean(values)
        >>> 0.2 < interval.low < 0.54 < interval.high < 0.9
        True
        """
        marked = np.ones(len(values), dtype=np.bool_) if among is None else among
        if not len(values) == len(marked) == self.examples:
            raise RequestError(f"{len(values)} values of {self.examples} examples")
        count = int(np.count_nonzero(marked))
        if count < FEWEST:
            return None
        chosen = values[marked].astype(np.float64)
        estimate = float(np.mean(chosen))
        if np.all(chosen == chosen[0]):
            return Interval(estimate, estimate)
        weights = marked.astype(np.float64)
        # Differences from the mean, so that float32 sums keep their digits.
        differences = np.where(marked, np.nan_to_num(values) - estimate, 0.0)
        columns = np.stack([differences, weights], axis=1).astype(np.float32)
        sums = np.concatenate([block @ columns for block in self._blocks()]).astype(np.float64)
        drawn = sums[:, 1] > 0
        changes = sums[drawn, 0] / sums[drawn, 1]
        without = -differences / (count - weights)  # minus the mean
        equal = np.abs(changes) <= ROUNDING * np.abs(differences).max()
        below = np.count_nonzero((changes < 0) & ~equal) + np.count_nonzero(equal) / 2
        ends = _levels(below / len(changes), _acceleration(without), confidence, len(changes))
        low, high = estimate + np.quantile(changes, ends)
        # A mean lies among the values; rounding must not show.
        low, high = np.clip([low, high], chosen.min(), chosen.max())
        return Interval(float(low), float(high))

    def _blocks(self) -> Iterator[NDArray[np.float32]]:
        """Yields how often each sample holds each example, shape (samples, n), in blocks."""
        if self.examples * self.resamples <= KEPT:
            yield from self._kept
        else:
            yield from self._drawn()

    @cached_property
    def _kept(self) -> tuple[NDArray[np.float32], ...]:
        return tuple(self._drawn())

    def _drawn(self) -> Iterator[NDArray[np.float32]]:
        random = np.random.default_rng(self.seed)
        rows = max(1, min(self.resamples, KEPT // (16 * max(1, self.examples))))
        for first in range(0, self.resamples, rows):
            size = min(rows, self.resamples - first)
            drawn = random.integers(0, self.examples, (size, self.examples))
            yield np.stack([np.bincount(each, minlength=self.examples) for each in drawn]).astype(
                np.float32
            )


def quantile_interval(
    values: NDArray[np.floating], at: Fraction, *, confidence: float = 0.95
) -> Interval | None:
    r"""Returns the BCa interval of a quantile, the lower order statistic, over all values.

    With k the rank of the quantile, from 1, the bootstrap distribution is

    .. math:: P(\theta^* \le x_{(i)}) = P[B \ge k], \quad B \sim \mathrm{Bin}(n, i / n)

    The ends are values themselves, the nearest that do not narrow the interval.

    Args:
        values: shape (n,); NaN counts as infinite (`gibbon.metrics.nearest`).
        at: the quantile, such as 1/2.
        confidence: the share of intervals that hold the true quantile.

    Returns None if the quantile is infinite or there are fewer than two values; the upper end may
    be infinite.

    >>> quantile_interval(np.arange(1.0, 100.0), Fraction(1, 2))
    Interval(low=40.0, high=60.0)
    """
    from scipy.special import bdtrc  # late: most commands need no interval

    total = len(values)
    if total < FEWEST:
        return None
    ordered = np.sort(np.where(np.isnan(values), np.inf, values.astype(np.float64)))
    place = math.floor(at * (total - 1))
    estimate = float(ordered[place])
    if not math.isfinite(estimate):
        return None
    ranks = np.arange(1, total + 1)
    within = np.asarray(bdtrc(place, total, ranks / total), dtype=np.float64)
    within[-1] = 1.0
    equal = ordered == estimate
    first, last = int(equal.argmax()), total - 1 - int(equal[::-1].argmax())
    before = float(within[first - 1]) if first else 0.0
    share = (before + float(within[last])) / 2
    # Without one of the examples, the rank of the quantile is another.
    lower = math.floor(at * (total - 2))
    moved = float(ordered[min(lower + 1, total - 1)])
    without = np.where(ranks - 1 <= lower, moved, ordered[lower])
    ends = _levels(share, _acceleration(without), confidence, total)
    low = float(ordered[max(0, int(np.searchsorted(within, ends[0], side="right")))])
    high = float(ordered[min(total - 1, int(np.searchsorted(within, ends[1])))])
    return Interval(min(low, estimate), max(high, estimate))


def _acceleration(without: Values) -> float:
    """Returns a, from the estimates without one example each; 0 if one of them is infinite."""
    if not np.all(np.isfinite(without)):
        return 0.0
    differences = np.mean(without) - without
    spread = float(np.sum(differences**2))
    return float(np.sum(differences**3)) / (6 * spread**1.5) if spread > 0 else 0.0


def _levels(
    share_below: float, acceleration: float, confidence: float, samples: int
) -> tuple[float, float]:
    """Returns the levels of the quantiles that are the ends of the interval."""
    least = 1 / (2 * samples)  # a share of 0 or 1 has no quantile
    bias = NORMAL.inv_cdf(min(max(share_below, least), 1 - least))

    def level(tail: float) -> float:
        shifted = bias + NORMAL.inv_cdf(tail)
        return NORMAL.cdf(bias + shifted / (1 - acceleration * shifted))

    return level((1 - confidence) / 2), level((1 + confidence) / 2)
