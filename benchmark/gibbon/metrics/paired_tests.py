"""Tests of paired outcomes: which of two runs, models or attacks is wrong more often.

Both are measured on the same examples, and only those examples count on which they differ.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

from gibbon.core.errors import RequestError


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


def examples_needed(
    only_first: int, only_second: int, total: int, *, alpha: float = 0.05, power: float = 0.8
) -> int | None:
    r"""Returns about how many examples McNemar's test would need to show an observed difference.

    With :math:`\psi = (b + c) / N` the share of examples on which the two differ and
    :math:`\delta = |b - c| / N` the difference of their errors,

    .. math::
        n = \frac{\bigl(z_{1 - \alpha / 2} \sqrt{\psi}
                    + z_{power} \sqrt{\psi - \delta^2}\bigr)^2}{\delta^2}

    Source: R. J. Connor, "Sample size for testing differences in proportions for the paired-sample
    design", Biometrics 43, 1987, equation 3.

    Args:
        only_first: number of examples on which the first alone is wrong, b.
        only_second: number of examples on which the second alone is wrong, c.
        total: number of examples of both, N.
        alpha: two-sided level; divide it by the number of tests if there are several.
        power: probability to find the difference if it is as large as observed.

    Returns None if there is no difference.  Raises `RequestError` for impossible numbers.

    >>> examples_needed(30, 20, 1000), examples_needed(7, 7, 1000)
    (3923, None)
    """
    possible = min(only_first, only_second) >= 0 and 0 < only_first + only_second <= total
    if not (possible or only_first == only_second == 0 < total):
        raise RequestError(f"no test of {only_first} against {only_second} of {total} examples")
    if not (0 < alpha < 1 and 0 < power < 1):
        raise RequestError(f"no test at level {alpha:g} with power {power:g}")
    difference = abs(only_first - only_second) / total
    if difference == 0:
        return None
    differing = (only_first + only_second) / total
    level, certain = NormalDist().inv_cdf(1 - alpha / 2), NormalDist().inv_cdf(power)
    spread = math.sqrt(max(0.0, differing - difference**2))
    root = level * math.sqrt(differing) + certain * spread
    return math.ceil((root / difference) ** 2)


def rounded(number: int) -> int:
    """Returns an estimated number of examples rounded up to two digits, as it is printed.

    >>> rounded(3923), rounded(87), rounded(100)
    (4000, 87, 100)
    """
    unit = int(f"1{'0' * (len(str(number)) - 2)}")
    return -(-number // unit) * unit
