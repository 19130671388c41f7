r"""Several classifiers as one, which any attack can attack and any example can be scored on.

Three ways to fuse the outputs of members, after Y. Dong, F. Liao, T. Pang, H. Su, J. Zhu, X. Hu and
J. Li, "Boosting adversarial attacks with momentum", CVPR 2018, section 3.4,
https://arxiv.org/abs/1710.06081.  With shares :math:`w_m` that sum to 1, and of member m the
logits :math:`z^m`, the probabilities :math:`p^m` and the loss :math:`L^m_k` that it was trained
with, if k is the true class:

- ``"probabilities"``: predicts with :math:`\sum_m w_m p^m`; the loss is minus the logarithm of that
  for the true class, the confidence its maximum (equation 10).
- ``"logits"``: predicts with the softmax of :math:`\sum_m w_m z^m`; the loss is its cross-entropy,
  the confidence its maximum (equation 9).
- ``"loss"``: the loss is :math:`\sum_m w_m L^m_y` (equation 11).  It predicts the class of the
  smallest loss, with the confidence :math:`e^{-L}`: where all members have logits that is the
  class of the logits' mean, and the geometric mean of the members' probabilities for it.

All of them give attacks the exact direction, also where every member is so sure of the true class
that its softmax rounds to 1 (`gibbon.models.outputs.OutputRule.ascent`): what is fused are logarithms,
none of which rounds to zero.
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from gibbon.core.errors import ModelError, suggest
from gibbon.core.rng import seeded_globals
from gibbon.models.classifier import Classifier, PassCount, probe
from gibbon.models.outputs import LOGITS, LOSS_SCORES, OutputRule

Fuse = Literal["probabilities", "logits", "loss"]
DEFAULT: Fuse = "probabilities"
TRIED = 2  # random inputs that each member is tried on
SEED = 0  # of these


class Fusion(ABC):
    """One way to make one output of many."""

    rule: OutputRule  # of the fused outputs

    @abstractmethod
    def part(self, outputs: Tensor, rule: OutputRule) -> Tensor:
        """Returns what a member brings, shape (N, K), from its own outputs."""

    @abstractmethod
    def whole(self, parts: Tensor, shares: Tensor) -> Tensor:
        """Returns the fused outputs, shape (N, K), of parts of shape (M, N, K).

        ``shares`` has shape (M, 1, 1) and sums to 1.
        """


class InLogits(Fusion):
    """The mean of the logits; where a member has none, of the logarithms of what it has."""

    rule = LOGITS

    def part(self, outputs: Tensor, rule: OutputRule) -> Tensor:
        """Returns the logits."""
        return rule.as_logits(outputs)

    def whole(self, parts: Tensor, shares: Tensor) -> Tensor:
        """Returns their mean."""
        return (parts * shares).sum(0)


class InProbabilities(Fusion):
    r"""The logarithm of the mean probability.

    As logits they have that mean for their softmax, and :math:`q - e_y` of
    `gibbon.models.outputs.Logits.ascent` for an exact direction: the logarithms of the other classes'
    probabilities say what 1 minus the true one's has rounded away.
    """

    rule = LOGITS

    def part(self, outputs: Tensor, rule: OutputRule) -> Tensor:
        """Returns log-probabilities; scores that do not sum to 1 are divided by their sum."""
        return functional.log_softmax(rule.as_logits(outputs), dim=1)

    def whole(self, parts: Tensor, shares: Tensor) -> Tensor:
        """Returns the logarithm of the mean."""
        return (parts + shares.log()).logsumexp(0)


class InLoss(Fusion):
    """Minus the logarithm of the mean loss."""

    rule = LOSS_SCORES

    def part(self, outputs: Tensor, rule: OutputRule) -> Tensor:
        """Returns the logarithm of each class's loss."""
        return rule.log_losses(outputs)

    def whole(self, parts: Tensor, shares: Tensor) -> Tensor:
        """Returns minus the logarithm of the mean."""
        return -(parts + shares.log()).logsumexp(0)


FUSIONS: dict[Fuse, Fusion] = {
    "probabilities": InProbabilities(),
    "logits": InLogits(),
    "loss": InLoss(),
}


class Ensemble(nn.Module):
    """The module of an ensemble: one forward pass is a forward pass of each member.

    Args:
        members: what is fused.
        rules: what the outputs of each mean.
        fusion: how they are fused.
        shares: of each in the whole; they sum to 1.
    """

    shares: Tensor

    def __init__(
        self,
        members: Sequence[nn.Module],
        *,
        rules: Sequence[OutputRule],
        fusion: Fusion,
        shares: Sequence[float],
    ) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.rules = tuple(rules)
        self.fusion = fusion
        self.register_buffer("shares", torch.tensor(shares).view(-1, 1, 1))

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns the fused outputs, shape (N, K), for inputs of shape (N, ...)."""
        parts = [
            self.fusion.part(_precise(member(inputs)), rule)
            for member, rule in zip(self.members, self.rules, strict=True)
        ]
        return self.fusion.whole(torch.stack(parts), self.shares)


def ensemble(
    members: Sequence[Classifier],
    *,
    fuse: Fuse = DEFAULT,
    shares: Sequence[float] | None = None,
    names: Sequence[str] = (),
) -> Classifier:
    """Returns several classifiers as one.  It shares their modules, and leaves them as they are.

    Args:
        members: classifiers with the same classes, inputs and bounds; what their outputs mean may
            differ from one to the other.
        fuse: in what they are fused.
        shares: a positive number a member; equal if None.  Only their ratios count.
        names: what error messages call the members.

    It is forward-only where one of the members is.

    Raises `ModelError` where they can't be fused, or one does not do what it declares.

    >>> def net(classes: int = 3) -> Classifier:
    ...     layers = nn.Sequential(nn.Flatten(), nn.Linear(4, classes))
    ...     return Classifier(layers, classes=classes, input_shape=(1, 2, 2))
    >>> both = ensemble([net(), net()], fuse="loss")
    >>> both(torch.rand(5, 1, 2, 2)).shape, both.outputs
    (torch.Size([5, 3]), <outputs: loss-scores>)
    >>> ensemble([net(), net(4)], names=["one", "two"])
    Traceback (most recent call last):
    ...
    gibbon.core.errors.ModelError: 'two' has 4 classes, 'one' has 3: they can't be fused
    """
    check_fuse(fuse)
    called = [repr(name) for name in names] or [f"members[{i}]" for i in range(len(members))]
    whole = check_shares(shares, count=len(members))
    for name, member in zip(called, members, strict=True):
        _check_classifier(member, name)
        _check_alike(member, name, first=members[0], first_name=called[0])
        _check_answers(member, name)
    fusion = FUSIONS[fuse]
    module = Ensemble(
        [each.module for each in members],
        rules=[each.outputs for each in members],
        fusion=fusion,
        shares=whole,
    )
    reasons = zip(called, (each.forward_only for each in members), strict=True)
    first = members[0]
    return Classifier(
        module,
        classes=first.classes,
        input_shape=first.input_shape,
        outputs=fusion.rule,
        bounds=first.bounds,
        forward_only=next((f"its member {name}: {why}" for name, why in reasons if why), ""),
    )


def check_fuse(fuse: object) -> Fuse:
    """Returns it.  Raises `ModelError` where there is no such way to fuse."""
    for known in get_args(Fuse):
        if fuse == known:
            way: Fuse = known
            return way
    known = ", ".join(map(repr, get_args(Fuse)))
    near = suggest(str(fuse), get_args(Fuse)).rstrip(".")
    raise ModelError(f"fuse: expected one of {known}, got {fuse!r}{near}")


def check_shares(shares: object, *, count: int) -> list[float]:
    """Returns shares that sum to 1; equal ones for None.

    Raises `ModelError` where they are not one positive number a member.
    """
    if count < 1:
        raise ModelError("an ensemble needs members")
    if shares is None:
        return [1 / count] * count
    given = list(shares) if isinstance(shares, Sequence) and not isinstance(shares, str) else []
    sound = all(
        isinstance(each, int | float)
        and not isinstance(each, bool)
        and math.isfinite(each)
        and each > 0
        for each in given
    )
    if len(given) != count or not sound:
        raise ModelError(
            f"shares: expected a positive number for each of the {count} members, got {shares!r}"
        )
    return [each / sum(given) for each in given]


def _check_classifier(member: object, name: str) -> None:
    if not isinstance(member, Classifier):
        raise ModelError(
            f"{name}: expected a gibbon.models.classifier.Classifier, got {type(member).__name__}: "
            "Classifier(module, classes=..., input_shape=...) makes one of a module"
        )


def _check_alike(member: Classifier, name: str, *, first: Classifier, first_name: str) -> None:
    for own, other, wording in (
        (member.classes, first.classes, "{} has {} classes, {} has {}"),
        (member.input_shape, first.input_shape, "{} takes inputs of shape {}, {} of shape {}"),
        (member.bounds, first.bounds, "{} takes inputs in {}, {} in {}"),
    ):
        if own != other:
            told = wording.format(name, own, first_name, other)
            raise ModelError(f"{told}: they can't be fused")


def _check_answers(member: Classifier, name: str) -> None:
    """Refuses a member that breaks its declaration: fused, its outputs would hide that."""
    home = next(
        (each.device for each in (*member.module.parameters(), *member.module.buffers())),
        torch.device("cpu"),
    )
    draws = torch.rand(TRIED, *member.input_shape, generator=torch.Generator().manual_seed(SEED))
    bounds = member.bounds
    inputs = (bounds.low + draws * bounds.width).to(home)
    alone = copy.copy(member)
    alone.passes = PassCount()  # trying it is nothing that its owner asked for
    try:
        with seeded_globals(SEED, home), alone.evaluating():
            probe(alone, inputs)
    except ModelError as error:
        raise ModelError(f"{name}: {error}") from error


def _precise(outputs: Tensor) -> Tensor:
    return outputs if outputs.dtype in (torch.float32, torch.float64) else outputs.float()
