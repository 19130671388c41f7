r"""Detection of inputs that belong to no class by a model's confidence.

Inputs with a class are the positives, those without one the negatives, and the score is the model's
confidence (Hendrycks and Gimpel, "A baseline for detecting misclassified and out-of-distribution
examples in neural networks", ICLR 2017; https://arxiv.org/abs/1610.02136).

- `auroc`: :math:`P(C > N) + P(C = N) / 2` for the confidences C of an input with a class and N of
  one without.  0.5 is a guess; 1 separates them perfectly.
- `false_positives_at_tpr`: the share of inputs without a class that are accepted at the threshold
  that accepts 95 % of those with one (Liang, Li and Srikant, "Enhancing the reliability of
  out-of-distribution image detection in neural networks", ICLR 2018;
  https://arxiv.org/abs/1706.02690).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gibbon.metrics.intervals import Interval, joint_freedom, student_quantile
from gibbon.metrics.rates import Share, share

ConfidenceArray = NDArray[np.floating]
TRUE_POSITIVE_RATE = 0.95


@dataclass(frozen=True)
class Auroc:
    """The area under the ROC curve, with its interval; None if a side has no input."""

    value: float | None
    interval: Interval | None = None


def auroc(clean: ConfidenceArray, no_class: ConfidenceArray, *, confidence: float = 0.95) -> Auroc:
    r"""Returns the area under the ROC curve of confidences, with an interval.

    With the midranks of both samples together and of each alone it takes one sort.  The variance is

    .. math:: v = \frac{s_{10}^2}{m} + \frac{s_{01}^2}{n},

    with the variances of the placements: of each input with a class, the share of the others below
    it, and of each input without one, the share of those with a class above it.  The interval is
    symmetrical on the logit scale, so that it stays within [0, 1], and has the quantile of
    Student's t with the freedom of Welch and Satterthwaite, for few inputs.  It is None if the
    variance is 0, as for samples that do not overlap, or unknown, as for one input.

    Sources: DeLong, DeLong and Clarke-Pearson, "Comparing the areas under two or more correlated
    receiver operating characteristic curves", Biometrics 44, 1988, equations 3 to 5; for the logit
    scale, Pepe, "The statistical evaluation of medical tests for classification and prediction",
    2003, section 5.2.4.

    Args:
        clean: shape (m,): confidences on inputs with a class.
        no_class: shape (n,): confidences on inputs without one.
        confidence: the share of intervals that hold the true area.

    >>> auroc(np.array([0.9, 0.8, 0.5]), np.array([0.5, 0.1])).value
    0.9166666666666666
    """
    m, n = len(clean), len(no_class)
    if m == 0 or n == 0:
        return Auroc(None)
    both = _midranks(np.concatenate([clean, no_class]))
    above = (both[:m] - _midranks(clean)) / n  # share of those without a class below each
    below = 1 - (both[m:] - _midranks(no_class)) / m  # share of those with a class above each
    value = float(np.mean(above))
    if not 0 < value < 1 or min(m, n) < 2:
        return Auroc(value)
    parts = float(np.var(above, ddof=1)) / m, float(np.var(below, ddof=1)) / n
    variance = math.fsum(parts)
    if variance <= 0:
        return Auroc(value)
    from scipy.special import expit  # late: most commands need no interval

    freedom = joint_freedom(parts, (m - 1, n - 1))
    reach = student_quantile(freedom, confidence=confidence) * math.sqrt(variance)
    reach /= value * (1 - value)  # the derivative of the logit
    centre = math.log(value / (1 - value))
    return Auroc(value, Interval(float(expit(centre - reach)), float(expit(centre + reach))))


def threshold_at_tpr(clean: ConfidenceArray, *, rate: float = TRUE_POSITIVE_RATE) -> float | None:
    """Returns the largest confidence that at least a share of the inputs with a class reach.

    None without inputs.

    >>> threshold_at_tpr(np.array([0.1, 0.9, 0.8, 0.7]), rate=0.75)
    0.7
    """
    if not len(clean):
        return None
    falling = np.sort(clean)[::-1]
    needed = math.ceil(rate * len(falling) - 1e-9)  # rounding must not add one
    return float(falling[max(needed, 1) - 1])


def false_positives_at_tpr(
    clean: ConfidenceArray, no_class: ConfidenceArray, *, rate: float = TRUE_POSITIVE_RATE
) -> Share:
    """Returns the share of inputs without a class at or above `threshold_at_tpr`.

    >>> false_positives_at_tpr(np.array([0.9, 0.8]), np.array([0.8, 0.2]))
    Share(count=1, total=2)
    """
    threshold = threshold_at_tpr(clean, rate=rate)
    if threshold is None:
        return Share(0, 0)
    return share(no_class >= threshold)


def _midranks(values: ConfidenceArray) -> NDArray[np.float64]:
    """Returns the rank of each value, from 1; equal values share the mean of their ranks."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    middle: NDArray[np.float64] = last - (counts - 1) / 2
    return middle[place]
