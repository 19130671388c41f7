"""Intervals for rates."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

from benchmark.errors import RequestError


@dataclass(frozen=True)
class Interval:
    """A confidence interval: ``low`` and ``high`` are fractions of 1."""

    low: float
    high: float


def wilson_interval(count: int, total: int, *, confidence: float = 0.95) -> Interval:
    r"""Returns the Wilson score interval of a rate of ``count`` in ``total``.

    .. math::
        \frac{\hat p + z^2/2n \pm z \sqrt{\hat p (1 - \hat p)/n + z^2/4n^2}}{1 + z^2/n}

    Source: E. B. Wilson, "Probable inference, the law of succession, and statistical inference",
    Journal of the American Statistical Association 22, 1927.

    Raises `RequestError` where ``total`` is not positive or ``count`` is outside ``[0, total]``.

    >>> interval = wilson_interval(10, 100)
    >>> round(interval.low, 4), round(interval.high, 4)
    (0.0552, 0.1744)
    >>> wilson_interval(0, 10).low, wilson_interval(10, 10).high
    (0.0, 1.0)
    """
    if total <= 0 or not 0 <= count <= total:
        raise RequestError(f"no rate of {count} in {total}")
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    rate = count / total
    centre = rate + z * z / (2 * total)
    reach = z * math.sqrt(rate * (1 - rate) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    # At the ends centre and reach are equal in exact arithmetic; rounding must not show.
    low = 0.0 if count == 0 else (centre - reach) / scale
    high = 1.0 if count == total else (centre + reach) / scale
    return Interval(low, high)
