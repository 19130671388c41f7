r"""Linearity of a model's outputs along a direction, for each example.

An example is moved along one direction, :math:`x + \epsilon d`, on both sides of the input.  If the
outputs are lines in :math:`\epsilon` on each side, the model is piecewise linear on a large scale.

Source: I. J. Goodfellow, J. Shlens and C. Szegedy, "Explaining and harnessing adversarial
examples", ICLR 2015, section 8 and figure 4, https://arxiv.org/abs/1412.6572.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gibbon.core.errors import RequestError

Numbers = NDArray[np.float64]


def linear_share(outputs: Numbers, epsilons: Numbers) -> Numbers:
    r"""Returns the share of the outputs' variation along a direction that straight lines explain.

    For each example a least-squares line is fitted to every output k; the share is that of all
    outputs together,

    .. math:: R^2 = 1 - \frac{\sum_k \sum_j (z_{jk} - \hat z_{jk})^2}
                             {\sum_k \sum_j (z_{jk} - \bar z_k)^2}

    Args:
        outputs: shape (N, E, K): outputs at each epsilon.
        epsilons: shape (E,), at least three different values.

    Returns the share, shape (N,), in [0, 1]; 1 for outputs that do not change.  Raises
    `RequestError` for fewer than three values.

    >>> epsilons = np.linspace(0, 1, 5)
    >>> line, bend = 3 * epsilons + 1, np.abs(epsilons - 0.5)
    >>> linear_share(np.stack([line, bend])[:, :, None], epsilons).round(3).tolist()
    [1.0, 0.0]
    """
    if len(np.unique(epsilons)) < 3:
        raise RequestError("the linearity of outputs needs them at three epsilons or more")
    centred = epsilons - epsilons.mean()
    moved = outputs - outputs.mean(1, keepdims=True)
    slopes = np.einsum("j,njk->nk", centred, moved) / np.square(centred).sum()
    rest = np.square(moved - centred[None, :, None] * slopes[:, None, :]).sum((1, 2))
    total = np.square(moved).sum((1, 2))
    changing = total > np.finfo(np.float32).eps ** 2 * (1 + np.square(outputs).sum((1, 2)))
    share = 1.0 - np.divide(rest, total, out=np.zeros_like(total), where=changing)
    return np.asarray(np.clip(share, 0.0, 1.0), dtype=np.float64)


def first_error(wrong: NDArray[np.bool_], epsilons: Numbers) -> Numbers:
    """Returns the smallest epsilon of zero or more at which an example is misclassified, (N,).

    Args:
        wrong: bool, shape (N, E).
        epsilons: shape (E,), ascending.

    It is infinite for an example that is misclassified nowhere on this side.

    >>> wrong = np.array([[True, False, True], [False, False, False]])
    >>> first_error(wrong, np.array([-1.0, 0.0, 2.0])).tolist()
    [2.0, inf]
    """
    at = np.where(wrong & (epsilons >= 0), epsilons, np.inf)
    return np.asarray(at.min(1), dtype=np.float64)


def steadiness(predicted: NDArray[np.int64], epsilons: Numbers, *, start: Numbers) -> Numbers:
    """Returns how steadily an example keeps one class from an epsilon to the end, shape (N,).

    Args:
        predicted: int64, shape (N, E): predicted classes.
        epsilons: shape (E,), ascending.
        start: shape (N,): the epsilon from which on the points of an example count.

    Returns the share of these points at which the most frequent of their classes is predicted; NaN
    if there is no point.

    >>> predicted = np.array([[1, 1, 2, 2, 2]])
    >>> steadiness(predicted, np.arange(5.0), start=np.array([1.0])).tolist()
    [0.75]
    """
    shares = np.full(len(predicted), np.nan)
    for place, (classes, first) in enumerate(zip(predicted, start, strict=True)):
        counted = classes[epsilons >= first]
        if len(counted):
            shares[place] = np.bincount(counted).max() / len(counted)
    return shares
