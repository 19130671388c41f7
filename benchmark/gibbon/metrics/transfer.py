"""Transfer: examples made on a source, scored on a target.

Source: Goodfellow et al. 2015, section 8, whose two conditions (the source is misled; both models
are) and their denominators are kept apart here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gibbon.metrics.rates import Classes, Flags, Share, same_class, share


@dataclass(frozen=True)
class Scored:
    """What one model said of one source's candidates.

    Args:
        predicted: int64, shape (N,).
        misled: bool, shape (N,): the candidate is valid and misclassified.
        confidence: float32, shape (N,).
    """

    predicted: Classes
    misled: Flags
    confidence: NDArray[np.float32]


@dataclass(frozen=True)
class TransferShares:
    """One source against one target.

    Args:
        error: misclassified by the target, among all examples.
        error_given_source: the same, among those that mislead the source.
        same_class_given_source: the target gives the source's wrong class, among those that
            mislead the source.
        same_class_given_both: the same, among those that mislead both.
    """

    error: Share
    error_given_source: Share
    same_class_given_source: Share
    same_class_given_both: Share


def transfer_shares(source: Scored, target: Scored) -> TransferShares:
    """Returns the shares of one cell of the transfer matrices.

    >>> source = Scored(np.array([1, 1, 0]), np.array([True, True, False]), np.ones(3, "f4"))
    >>> target = Scored(np.array([1, 2, 0]), np.array([True, True, False]), np.ones(3, "f4"))
    >>> transfer_shares(source, target).same_class_given_both
    Share(count=1, total=2)
    """
    both = source.misled & target.misled
    return TransferShares(
        error=share(target.misled),
        error_given_source=share(target.misled, among=source.misled),
        same_class_given_source=share(
            target.misled & (target.predicted == source.predicted), among=source.misled
        ),
        same_class_given_both=same_class(source.predicted, target.predicted, among=both),
    )


def agreement_share(first: Scored, second: Scored) -> Share:
    """Returns how often two targets give the same class, among the examples that mislead both."""
    both = first.misled & second.misled
    return same_class(first.predicted, second.predicted, among=both)
