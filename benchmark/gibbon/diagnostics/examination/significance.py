"""Decides whether other predictions for the same examples have fewer errors, beyond chance."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from scipy.stats import binom
from torch import Tensor

LEVEL = 5e-3  # of McNemar's exact test, one-sided, on examples that took no part in the choice
LEAST_GAIN = 0.1  # of the error
LEAST_RECALL, RECALL_GAIN = 0.3, 0.1  # of the mean over classes


@dataclass(frozen=True)
class Gain:
    """Errors of two predictions for the same examples.

    Args:
        before, after: shares of errors.
        examples: their number.
        sure: whether the second has fewer beyond chance, and not for one class alone.
    """

    before: float
    after: float
    examples: int
    sure: bool


def gain(labels: Tensor, *, before: Tensor, after: Tensor) -> Gain:
    """Returns the errors of two predictions, int64, shape (N,).

    The second is better beyond chance by McNemar's exact test, by a tenth or more of the examples,
    and in the mean over classes: a constant answer may be right for most examples of unbalanced
    data.
    """
    old, new = before == labels, after == labels
    wins, losses = int((new & ~old).sum()), int((old & ~new).sum())
    errors = [1 - float(each.double().mean()) for each in (old, new)]
    chance = float(binom.sf(wins - 1, wins + losses, 0.5)) if wins else 1.0
    recalls = [_mean_recall(labels, each) for each in (old, new)]
    sure = (
        chance <= LEVEL
        and errors[0] - errors[1] >= LEAST_GAIN
        and recalls[1] >= LEAST_RECALL
        and recalls[1] - recalls[0] >= RECALL_GAIN
        and bool((labels != labels[0]).any())
    )
    return Gain(errors[0], errors[1], len(labels), sure)


def _mean_recall(labels: Tensor, right: Tensor) -> float:
    present: Tensor = torch.unique(labels)
    shares = torch.stack([right[labels == each].double().mean() for each in present])
    return float(shares.mean())
