"""Transfer: adversarial examples crafted on a source and scored on a target.

Source: Goodfellow et al. 2015, section 8, which conditions on examples that the source
misclassifies, and on those that both models misclassify.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gibbon.metrics.rates import Classes, Flags, Share, same_class, share


@dataclass(frozen=True)
class Scored:
    """Predictions of one model on the candidates of one source.

    Args:
        predicted: int64, shape (N,): predicted classes.
        misled: bool, shape (N,): whether the candidate is valid and misclassified.
        confidence: float32, shape (N,): probability of the predicted class.
    """

    predicted: Classes
    misled: Flags
    confidence: NDArray[np.float32]


@dataclass(frozen=True)
class TransferShares:
    """Shares of examples for one source and one target.

    Args:
        error: misclassified by the target, among all examples.
        error_given_source: misclassified by the target, among those that the source misclassifies.
        same_class_given_source: the target predicts the source's wrong class, among those that the
            source misclassifies.
        same_class_given_both: the target predicts the source's wrong class, among those that both
            misclassify.
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
    """Returns the share of one predicted class among examples that two targets misclassify."""
    both = first.misled & second.misled
    return same_class(first.predicted, second.predicted, among=both)
