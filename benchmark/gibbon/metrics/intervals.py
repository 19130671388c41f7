"""Intervals for rates, and tests of paired outcomes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

from gibbon.core.errors import RequestError


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

    Raises `RequestError` if ``total`` is not positive or ``count`` is outside ``[0, total]``.

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


def mcnemar(only_old: int, only_new: int) -> float:
    r"""Returns the two-sided p-value of McNemar's exact test on paired yes-or-no outcomes.

    Of the examples on which two runs differ, ``only_old`` are wrong in the old run alone and
    ``only_new`` in the new one alone.  Without a change each is as likely as the other:

    .. math:: p = \min\bigl(1,\; 2\,P[B \le \min(b, c)]\bigr), \quad B \sim \mathrm{Bin}(b + c, 1/2)

    Source: Q. McNemar, "Note on the sampling error of the difference between correlated
    proportions or percentages", Psychometrika 12, 1947, in its exact form.

    Raises `RequestError` if a count is negative.

    >>> mcnemar(0, 5)
    0.0625
    >>> mcnemar(3, 3)
    1.0
    """
    if only_old < 0 or only_new < 0:
        raise RequestError(f"no test of {only_old} against {only_new} examples")
    from scipy.special import bdtr  # late: most commands need no test

    differing = only_old + only_new
    if differing == 0:
        return 1.0
    return min(1.0, 2.0 * float(bdtr(min(only_old, only_new), differing, 0.5)))


def fewest_broken(fixed: int, *, alpha: float = 0.05, tests: int = 1) -> int:
    """Returns the fewest newly wrong examples for which McNemar's exact test is significant.

    ``fixed`` other examples become right; the p-value is multiplied by ``tests``, as Holm's
    procedure does with the smallest of so many.  Of N examples, an increase of the error rate below
    (broken - fixed) / N is not significant.

    Raises `RequestError` if a number is out of its range.

    >>> fewest_broken(0), fewest_broken(0, tests=20), fewest_broken(20)
    (6, 10, 36)
    """
    if fixed < 0 or tests < 1 or not 0 < alpha <= 1:
        raise RequestError(f"no test of {fixed} fixed examples at {alpha:g}, one of {tests}")
    broken = fixed + 1
    while tests * mcnemar(fixed, broken) >= alpha:
        broken += 1
    return broken


def holm(p_values: Sequence[float]) -> list[float]:
    """Returns p-values adjusted for multiple tests, in their order.

    Source: S. Holm, "A simple sequentially rejective multiple test procedure", Scandinavian
    Journal of Statistics 6, 1979.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted
