"""Decides whether other predictions for the same examples have fewer errors, beyond chance."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from scipy.stats import binom, wilcoxon
from torch import Tensor

LEVEL = 5e-3  # of McNemar's exact test, one-sided, on examples that took no part in the choice
# Mean rank of the true class up to which ranks decide: that of guessing is 0.5, and networks with
# random weights were above 0.37 with any preprocessing.
BEST_RANK = 0.35
FEWEST_RANKS = 12
LEAST_GAIN = 0.1  # of the error, and of the mean recall over classes
# Part of the way from guessing to perfect that the mean recall must go.  The answers of a network
# with random weights go together with the classes a little, in one order or scale or another.
ABOVE_CHANCE = 0.27


@dataclass(frozen=True)
class Gain:
    """Errors of two predictions for the same examples.

    Args:
        before, after: shares of errors.
        examples: their number.
        sure: whether the second has fewer beyond chance, and not for one class alone.
        gone: part of the first one's errors by which the second has fewer.
        gone_error: its standard error.
    """

    before: float
    after: float
    examples: int
    sure: bool
    gone: float = 0.0
    gone_error: float = 0.0

    def gone_at_least(self, deviations: float) -> float:
        """Returns the part of the errors that is gone, so many standard errors below its estimate.

        >>> round(Gain(0.5, 0.3, 100, sure=True, gone=0.4, gone_error=0.05).gone_at_least(2), 6)
        0.3
        """
        return self.gone - deviations * self.gone_error


def gain(
    labels: Tensor,
    *,
    before: Tensor,
    after: Tensor,
    least: float = LEAST_GAIN,
    above_chance: float = ABOVE_CHANCE,
    ranks: tuple[Tensor, Tensor] | None = None,
) -> Gain:
    """Returns the errors of two predictions, int64, shape (N,).

    The second is better beyond chance by McNemar's exact test, by a share ``least`` or more of the
    examples, and in the mean over classes: a constant answer may be right for most examples of
    unbalanced data.  How large the errors themselves are does not matter, as long as the second is
    better than guessing by ``above_chance``.

    ``ranks``, of the true class among the outputs, before and after, from 0 to 1, shape (N,), show
    with few examples what right and wrong do not: then Wilcoxon's signed-rank test may decide.
    """
    old, new = before == labels, after == labels
    wins, losses = int((new & ~old).sum()), int((old & ~new).sum())
    errors = [1 - float(each.double().mean()) for each in (old, new)]
    chance = float(binom.sf(wins - 1, wins + losses, 0.5)) if wins else 1.0
    guessing = 1 / max(1, len(torch.unique(labels)))
    recalls = [_mean_recall(labels, each) for each in (old, new)]
    sure = (
        (chance <= LEVEL or (ranks is not None and _ranks_fall(*ranks)))
        and errors[0] - errors[1] >= least
        and recalls[1] >= guessing + above_chance * (1 - guessing)
        and recalls[1] - recalls[0] >= least
        and bool((labels != labels[0]).any())
    )
    wrong = max(1, int((~old).sum()))
    gone, error = (wins - losses) / wrong, math.sqrt(wins + losses) / wrong
    return Gain(errors[0], errors[1], len(labels), sure, gone, error)


def _mean_recall(labels: Tensor, right: Tensor) -> float:
    present: Tensor = torch.unique(labels)
    shares = torch.stack([right[labels == each].double().mean() for each in present])
    return float(shares.mean())


def _ranks_fall(before: Tensor, after: Tensor) -> bool:
    """Returns whether ranks are lower beyond chance, and low."""
    changed = before != after
    if int(changed.sum()) < FEWEST_RANKS or float(after.mean()) > BEST_RANK:
        return False
    test = wilcoxon(before[changed].numpy(), after[changed].numpy(), alternative="greater")
    return bool(test.pvalue <= LEVEL)
