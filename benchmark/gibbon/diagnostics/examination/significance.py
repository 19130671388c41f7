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
# A part of the errors is gone if so much of the part is, so many standard errors below.
NEARLY, ERRORS = 0.83, 1.5


@dataclass(frozen=True)
class Gain:
    """Errors of two predictions for the same examples.

    Args:
        before, after: shares of errors.
        examples: their number.
        sure: whether the second has fewer beyond chance, and not for one class alone.
        large: whether the requested share of the errors is gone beyond chance.
    """

    before: float
    after: float
    examples: int
    sure: bool
    large: bool = True


def gain(
    labels: Tensor,
    *,
    before: Tensor,
    after: Tensor,
    least: float = LEAST_GAIN,
    above_chance: float = ABOVE_CHANCE,
    ranks: tuple[Tensor, Tensor] | None = None,
    share: float = 0.0,
) -> Gain:
    """Returns the errors of two predictions, int64, shape (N,).

    The second is better beyond chance by McNemar's exact test, by a share ``least`` or more of the
    examples, and in the mean over classes: a constant answer may be right for most examples of
    unbalanced data.  How large the errors themselves are does not matter, as long as the second is
    better than guessing by ``above_chance``.

    ``ranks``, of the true class among the outputs, before and after, from 0 to 1, shape (N,), show
    with few examples what right and wrong do not: then Wilcoxon's signed-rank test may decide.
    ``share``: part of the errors before that a large gain takes away.
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
    large = _share_gone(wins, losses, int((~old).sum()), share)
    return Gain(errors[0], errors[1], len(labels), sure, large)


def _share_gone(wins: int, losses: int, wrong: int, share: float) -> bool:
    """Returns whether a part of the errors is gone, and nearly so within the standard error."""
    gone, error = (wins - losses) / max(1, wrong), math.sqrt(wins + losses) / max(1, wrong)
    return gone >= share and gone - ERRORS * error >= NEARLY * share


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
