"""Intervals of error rates: of one model on many examples, and over draws of a random model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from gibbon.core.errors import RequestError


@dataclass(frozen=True)
class Interval:
    """A confidence interval from ``low`` to ``high``, in the units of what it is of."""

    low: float
    high: float


def joint_freedom(variances: Sequence[float], freedoms: Sequence[float]) -> float:
    """Returns the degrees of freedom of a sum of variances, by Welch and Satterthwaite.

    Args:
        variances: estimated variances, whose sum is that of what is estimated.
        freedoms: degrees of freedom of each; infinite if it is known.

    Infinite if only known variances are above 0, and 1 if none is.

    Source: F. E. Satterthwaite, "An approximate distribution of estimates of variance components",
    Biometrics Bulletin 2, 1946.

    >>> joint_freedom([1.0, 1.0], [4.0, 4.0]), joint_freedom([1.0, 1.0], [4.0, math.inf])
    (8.0, 16.0)
    """
    total = math.fsum(variances)
    if total == 0:
        return 1.0
    parts = (each**2 / own for each, own in zip(variances, freedoms, strict=True))
    estimated = math.fsum(parts)
    return total**2 / estimated if estimated else math.inf


def student_quantile(freedom: float, *, confidence: float = 0.95) -> float:
    """Returns how many standard errors an interval reaches: of Student's t, or normal if infinite.

    >>> round(student_quantile(4.0), 3), round(student_quantile(math.inf), 3)
    (2.776, 1.96)
    """
    from scipy.special import ndtri, stdtrit  # late: most commands need no interval

    upper = 0.5 + confidence / 2
    return float(ndtri(upper) if math.isinf(freedom) else stdtrit(freedom, upper))


def wilson_interval(count: float, total: float, *, confidence: float = 0.95) -> Interval:
    r"""Returns the Wilson score interval of a rate of ``count`` in ``total``.

    .. math::
        \frac{\hat p + z^2/2n \pm z \sqrt{\hat p (1 - \hat p)/n + z^2/4n^2}}{1 + z^2/n}

    Source: E. B. Wilson, "Probable inference, the law of succession, and statistical inference",
    Journal of the American Statistical Association 22, 1927.

    Raises `RequestError` if ``total`` is not positive or ``count`` is outside ``[0, total]``.

    >>> interval = wilson_interval(10, 100)
    >>> round(interval.low, 4), round(interval.high, 4)
    (0.0552, 0.1744)
    >>> wilson_interval(0, 10).low, wilson_interval(10, 10).high
    (0.0, 1.0)
    """
    if total <= 0 or not 0 <= count <= total:
        raise RequestError(f"no rate of {count} in {total}")
    return _score_interval(count / total, total, z=NormalDist().inv_cdf(0.5 + confidence / 2))


def _score_interval(rate: float, total: float, *, z: float) -> Interval:
    """Returns the score interval of a rate over a number of examples, which may be a fraction."""
    centre = rate + z * z / (2 * total)
    reach = z * math.sqrt(rate * (1 - rate) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    # At the ends centre and reach are equal in exact arithmetic; rounding must not show.
    low = 0.0 if rate == 0 else (centre - reach) / scale
    high = 1.0 if rate == 1 else (centre + reach) / scale
    return Interval(low, high)


def clustered_interval(
    shares: NDArray[np.float64], *, draws: int, confidence: float = 0.95
) -> Interval:
    r"""Returns an interval of the mean of shares, which covers both examples and draws.

    The share :math:`s_i` of example i is one of ``draws`` independent draws; examples are a sample
    too.  The variance of the mean is that of a sample of clusters, :math:`v = \sum_i (s_i - \bar
    s)^2 / N^2`, in which both sources of chance are contained.  The interval is Wilson's for the
    number of independent yes-or-no answers with the same variance,

    .. math:: n = \min(\max(\bar s (1 - \bar s) / v,\; N),\; N \cdot \mathrm{draws}),

    and for N if all answers are equal.  With one draw it is Wilson's interval.

    Sources: W. G. Cochran, "Sampling Techniques", 1977, chapter 9, for the variance; E. L. Korn and
    B. I. Graubard, "Confidence intervals for proportions with small expected number of positive
    counts estimated from survey data", Survey Methodology 24, 1998, for the effective sample size.

    Args:
        shares: shape (N,), in [0, 1].
        draws: number of draws of each example.
        confidence: probability that the interval covers the expectation.

    Raises `RequestError` if there are no shares.

    >>> both = clustered_interval(np.array([0.0, 1.0] * 50), draws=1)
    >>> both == wilson_interval(50, 100)
    True
    >>> same = clustered_interval(np.full(100, 0.5), draws=20)  # the examples do not differ
    >>> round(same.low, 3), round(same.high, 3)
    (0.478, 0.522)
    """
    count = len(shares)
    if count == 0:
        raise RequestError("no interval of no shares")
    rate = float(np.mean(shares))
    variance = float(np.mean((shares - rate) ** 2)) / count
    answers = float(count)
    if 0 < rate < 1:
        independent = rate * (1 - rate) / variance if variance > 0 else math.inf
        answers = min(max(independent, answers), float(count * draws))
    return _score_interval(rate, answers, z=NormalDist().inv_cdf(0.5 + confidence / 2))
