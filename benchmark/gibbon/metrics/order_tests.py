"""Tests of an order: whether one measure is lower than another, over examples and trainings.

A published claim such as "the error falls" is an order of two measures.  Each measure is a mean of
values over the examples that it counts, for one training of a model or for several that differ in
their seed.  Two things vary: the examples, on which both measures may be taken, and the trainings.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gibbon.core.errors import RequestError
from gibbon.metrics.intervals import Interval, joint_freedom, student_quantile
from gibbon.metrics.paired_tests import mcnemar
from gibbon.metrics.rates import Flags

MCNEMAR = "McNemar's exact test"
BINOMIAL = "exact binomial test"
PAIRED = "t-test paired by example"
UNPAIRED = "t-test of two samples"
ONE_SAMPLE = "t-test of one sample"
OVER_TRAININGS = ", over examples and trainings"
_CONFIDENCE = 0.95


@dataclass(frozen=True)
class TrainingValues:
    """A measure of one training: a mean of the values of the examples that it counts.

    Args:
        values: float64, shape (N,): 0 or 1 for a rate.
        counted: bool, shape (N,): the examples that the mean is taken over.
    """

    values: NDArray[np.float64]
    counted: Flags

    @property
    def rate(self) -> float | None:
        """The mean; None if no example is counted."""
        chosen = self.values[self.counted]
        return float(np.mean(chosen)) if len(chosen) else None

    @property
    def influence(self) -> NDArray[np.float64]:
        r"""How much each example moves the mean, shape (N,), with the sum 0.

        It is :math:`m_i (v_i - \bar v) / \bar m` for values v and counted examples m: the
        linearised variance of a ratio estimate is that of its mean.  Source: W. G. Cochran,
        "Sampling Techniques", 1977, chapter 6.
        """
        moved = np.where(self.counted, self.values - (self.rate or 0.0), 0.0)
        return np.asarray(moved / np.mean(self.counted), dtype=np.float64)

    @property
    def yes_or_no(self) -> bool:
        """Whether it is a share of all examples, each with a value of 0 or 1."""
        return bool(self.counted.all()) and bool(np.isin(self.values, (0.0, 1.0)).all())


@dataclass(frozen=True)
class OrderTest:
    """The difference of two measures, first minus second, and a test of it.

    Args:
        first, second: means over the trainings of each side.
        difference: first minus second.
        interval: 95 % interval of the difference.
        p_value: two-sided, of no difference.
        test: name of the test.
    """

    first: float
    second: float
    difference: float
    interval: Interval
    p_value: float
    test: str


def compare_measures(
    first: Sequence[TrainingValues], second: Sequence[TrainingValues] | float, *, paired: bool
) -> OrderTest | None:
    r"""Returns a test of the difference of two measures; None if one has no examples to count.

    One training a side and two shares of the same examples are compared by McNemar's exact test, a
    share and a constant by the exact binomial test.  Everything else is a t-test of the difference
    of the means over trainings, whose variance is that over examples and that over trainings:

    .. math:: v = \frac{\mathrm{var}_i(\bar a_i - \bar b_i)}{N} + \frac{s_a^2}{n_a}
                  + \frac{s_b^2}{n_b}

    where :math:`\bar a_i` is the mean over trainings of the influence of example i (two variances
    in place of the first term if the examples are different ones).  Degrees of freedom are those of
    Welch and Satterthwaite.  A side with one training has no second term: the test is then about
    this one network.  Few examples that hardly differ make this variance too small, or 0, so that
    no p-value is below that of a sign test of as many examples as the smaller side counts,
    :math:`2^{1 - n}`; if the variance is 0, the interval leaves room for the largest share of other
    examples that :math:`n` equal ones allow, :math:`1 - 0.025^{1 / n}` (Clopper and Pearson 1934).

    Sources: Q. McNemar, Psychometrika 12, 1947; F. E. Satterthwaite, "An approximate distribution
    of estimates of variance components", Biometrics Bulletin 2, 1946.

    Args:
        first: the measure of each training.
        second: that of each training of the other side, or a constant.
        paired: whether both sides have the same examples in the same order.

    Raises `RequestError` if a side has no training.

    >>> everything = np.ones(6, dtype=bool)
    >>> one = TrainingValues(np.array([1.0, 1, 1, 1, 1, 0]), everything)
    >>> found = compare_measures([one], [TrainingValues(np.zeros(6), everything)], paired=True)
    >>> round(found.difference, 3), found.p_value, found.test
    (0.833, 0.0625, "McNemar's exact test")
    """
    others = () if isinstance(second, float | int) else second
    if not first or (not others and not isinstance(second, float | int)):
        raise RequestError("no test of an order without a training on each side")
    rates, other_rates = [each.rate for each in first], [each.rate for each in others]
    if None in rates or None in other_rates:
        return None
    mean = _mean(rates)
    other = float(second) if isinstance(second, float | int) else _mean(other_rates)
    variances, freedoms = _variances(first, others, paired=paired)
    difference = mean - other
    variance = math.fsum(variances)
    freedom = joint_freedom(variances, freedoms)
    fewest = min(_counted(side) for side in (first, others) if side)
    if variance:
        reach = math.sqrt(variance) * student_quantile(freedom, confidence=_CONFIDENCE)
        ends = Interval(difference - reach, difference + reach)
    else:
        reach = 1 - ((1 - _CONFIDENCE) / 2) ** (1 / fewest)
        ends = Interval(max(-1.0, difference - reach), min(1.0, difference + reach))
    p_value, test = _tested(first, others, other, paired=paired)(
        difference, math.sqrt(variance), freedom
    )
    p_value = max(p_value, 2.0 ** (1 - fewest))
    return OrderTest(mean, other, difference, ends, p_value, test)


_Test = Callable[[float, float, float], tuple[float, str]]


def _tested(
    first: Sequence[TrainingValues],
    others: Sequence[TrainingValues],
    constant: float,
    *,
    paired: bool,
) -> _Test:
    """Returns the function from difference, standard error and freedom to p-value and name."""
    single = len(first) == 1 and len(others) <= 1
    shares = single and all(each.yes_or_no for each in (*first, *others))
    if shares and others and paired:
        return lambda *_: (_mcnemar(first[0], others[0]), MCNEMAR)
    if shares and not others:
        return lambda *_: (_binomial(first[0], constant), BINOMIAL)
    name = (PAIRED if paired else UNPAIRED) if others else ONE_SAMPLE
    name += "" if single else OVER_TRAININGS
    return lambda difference, error, freedom: (_t_test(difference, error, freedom), name)


def _counted(side: Sequence[TrainingValues]) -> int:
    """Returns the number of examples that at least one training counts."""
    return int(np.count_nonzero(np.any([each.counted for each in side], axis=0)))


def _mcnemar(first: TrainingValues, second: TrainingValues) -> float:
    one, other = first.values > 0, second.values > 0
    return mcnemar(int(np.count_nonzero(one & ~other)), int(np.count_nonzero(other & ~one)))


def _binomial(observed: TrainingValues, constant: float) -> float:
    from scipy.stats import binomtest  # late: most commands need no test

    count, total = int(observed.values.sum()), len(observed.values)
    return float(binomtest(count, total, constant).pvalue)


def _t_test(difference: float, error: float, freedom: float) -> float:
    if error == 0:
        return 1.0 if difference == 0 else 0.0
    from scipy.special import stdtr  # late: most commands need no test

    return float(min(1.0, 2.0 * stdtr(freedom, -abs(difference) / error)))


def _variances(
    first: Sequence[TrainingValues], others: Sequence[TrainingValues], *, paired: bool
) -> tuple[list[float], list[float]]:
    """Returns the parts of the variance of the difference, and the freedom of each."""
    sides = [side for side in (first, others) if side]
    moved = [np.mean([each.influence for each in side], axis=0) for side in sides]
    if paired and len(moved) == 2:
        moved = [moved[0] - moved[1]]
    variances = [float(np.var(each, ddof=min(1, len(each) - 1))) / len(each) for each in moved]
    freedoms = [float(max(len(each) - 1, 1)) for each in moved]
    for side in sides:
        if len(side) > 1:
            rates = [each.rate for each in side]
            variances.append(float(np.var(np.array(rates, dtype=float), ddof=1)) / len(side))
            freedoms.append(float(len(side) - 1))
    return variances, freedoms


def interval_over_trainings(
    rates: Sequence[float], half_widths: Sequence[float | None]
) -> Interval | None:
    r"""Returns a 95 % interval of a mean over trainings, which covers examples and trainings.

    The variance is :math:`h^2 / z^2 + s^2 / n`: h is the mean half-width of the intervals over the
    examples, which are the same for all trainings, s the standard deviation of the n rates.  The
    quantile is that of Student's t with the freedom of Welch and Satterthwaite, and the ends are
    cut at 0 and 1.  None for one training, or if an interval over the examples is missing.

    >>> interval_over_trainings([0.5], [0.1])
    >>> found = interval_over_trainings([0.49, 0.5, 0.51], [0.01, 0.01, 0.01])
    >>> round(found.low, 3), round(found.high, 3)
    (0.481, 0.519)
    """
    known = [each for each in half_widths if each is not None]
    if len(rates) < 2 or len(known) < len(rates):
        return None
    normal = student_quantile(math.inf, confidence=_CONFIDENCE)
    by_example = (math.fsum(known) / len(known) / normal) ** 2
    by_training = float(np.var(np.array(rates), ddof=1)) / len(rates)
    mean = math.fsum(rates) / len(rates)
    freedom = joint_freedom([by_example, by_training], [math.inf, len(rates) - 1])
    reach = student_quantile(freedom, confidence=_CONFIDENCE) * math.sqrt(by_example + by_training)
    return Interval(max(0.0, mean - reach), min(1.0, mean + reach))


def _mean(rates: Sequence[float | None]) -> float:
    return math.fsum(each for each in rates if each is not None) / len(rates)
