r"""Ensembles: several classifiers fused into one.

There are three ways to fuse the outputs of members, after Y. Dong, F. Liao, T. Pang, H. Su, J. Zhu,
X. Hu and J. Li, "Boosting adversarial attacks with momentum", CVPR 2018, section 3.4,
https://arxiv.org/abs/1710.06081.  With shares :math:`w_m` that sum to 1, and of member m the
logits :math:`z^m`, the probabilities :math:`p^m` and the loss :math:`L^m_k` that it was trained
with, if k is the true class:

- ``"probabilities"``: predicts with :math:`\sum_m w_m p^m`; the loss is minus the logarithm of that
  for the true class, the confidence its maximum (equation 10).
- ``"logits"``: predicts with the softmax of :math:`\sum_m w_m z^m`; the loss is its cross-entropy,
  the confidence its maximum (equation 9).
- ``"loss"``: the loss is :math:`\sum_m w_m L^m_y` (equation 11).  It predicts the class of the
  smallest loss, with the confidence :math:`e^{-L}`: if all members have logits, that is the
  class of the logits' mean, and the geometric mean of the members' probabilities for it.

All of them give attacks the exact direction, even if the softmax of every member rounds to 1 for
the true class (`gibbon.models.outputs.OutputRule.ascent`): they fuse logarithms, none of which
rounds to zero.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from gibbon.core.errors import ModelError, OutputError, suggest
from gibbon.core.plain_tensors import plain
from gibbon.core.rng import seeded_globals
from gibbon.models.classifier import Classifier, probe
from gibbon.models.memory import tensors_of
from gibbon.models.outputs import LOGITS, LOSS_SCORES, OutputRule
from gibbon.models.pass_count import PassCount
from gibbon.models.shielding import shielded

Fuse = Literal["probabilities", "logits", "loss"]
DEFAULT: Fuse = "probabilities"
TRIED = 2  # random inputs that each member is tried on
SEED = 0  # of these inputs


@dataclass(frozen=True)
class Fusion:
    """A way to fuse the outputs of members into one output.

    Args:
        rule: of the fused outputs.
        part: returns a member's contribution, shape (N, K), of its outputs and their rule.
        whole: returns the fused outputs, shape (N, K), of parts of shape (M, N, K) and of shares
            of shape (M, 1, 1), which sum to 1.
    """

    rule: OutputRule
    part: Callable[[Tensor, OutputRule], Tensor]
    whole: Callable[[Tensor, Tensor], Tensor]


def _as_logits(outputs: Tensor, rule: OutputRule) -> Tensor:
    return rule.as_logits(outputs)


def _log_probabilities(outputs: Tensor, rule: OutputRule) -> Tensor:
    """Returns log-probabilities; scores that do not sum to 1 are divided by their sum."""
    return functional.log_softmax(rule.as_logits(outputs), dim=1)


def _log_losses(outputs: Tensor, rule: OutputRule) -> Tensor:
    return rule.log_losses(outputs)


def _mean(parts: Tensor, shares: Tensor) -> Tensor:
    return (parts * shares).sum(0)


def _log_mean(parts: Tensor, shares: Tensor) -> Tensor:
    """Returns the logarithm of the mean of what the parts are logarithms of."""
    return (parts + shares.log()).logsumexp(0)


def _minus_log_mean(parts: Tensor, shares: Tensor) -> Tensor:
    return -_log_mean(parts, shares)


# The logarithms of mean probabilities are taken as logits: their softmax is that mean, and
# `gibbon.models.outputs.Logits.ascent` gives the exact direction q - e_y, since the logarithms of
# the other classes' probabilities keep the digits that 1 minus the true class's probability loses
# by rounding.
FUSIONS: dict[Fuse, Fusion] = {
    "probabilities": Fusion(LOGITS, _log_probabilities, _log_mean),
    "logits": Fusion(LOGITS, _as_logits, _mean),
    "loss": Fusion(LOSS_SCORES, _log_losses, _minus_log_mean),
}


class Ensemble(nn.Module):
    """The module of an ensemble: one forward pass is a forward pass of each member.

    Args:
        members: the members, whose modules it takes, and their output rules.
        fusion: way to fuse their outputs.
        shares: weight of each member; they sum to 1.
    """

    shares: Tensor

    def __init__(
        self, members: Sequence[Classifier], *, fusion: Fusion, shares: Sequence[float]
    ) -> None:
        super().__init__()
        self.members = nn.ModuleList(each.module for each in members)
        self.rules = tuple(each.outputs for each in members)
        self.fusion = fusion
        self.register_buffer("shares", torch.tensor(shares).view(-1, 1, 1))

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns the fused outputs, shape (N, K), for inputs of shape (N, ...).

        Each member gets a copy of the inputs, into which it may write.
        """
        parts = [
            self.fusion.part(_precise(member(inputs.clone())), rule)
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
    """Returns the ensemble of several classifiers; it shares their modules, unchanged.

    Args:
        members: classifiers with equal classes, inputs and bounds; their output rules may differ.
        fuse: the quantity to fuse.
        shares: a positive number a member; equal if None.  Only their ratios matter.
        names: names of the members in error messages.

    The ensemble is forward-only if a member is.

    Raises `ModelError` if they can't be fused, or one breaks its declaration.

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
    _check_fuse(fuse)
    called = [repr(name) for name in names] or [f"members[{i}]" for i in range(len(members))]
    whole = check_shares(shares, count=len(members))
    for name, member in zip(called, members, strict=True):
        _check_classifier(member, name)
        _check_alike(member, name, first=members[0], first_name=called[0])
        _check_answers(member, name)
    # A member that writes into its input would change that of the members after it.
    members = [shielded(each, _trial_inputs(each)) for each in members]
    fusion = FUSIONS[fuse]
    reasons = zip(called, (each.forward_only for each in members), strict=True)
    first = members[0]
    return Classifier(
        Ensemble(members, fusion=fusion, shares=whole),
        classes=first.classes,
        input_shape=first.input_shape,
        outputs=fusion.rule,
        bounds=first.bounds,
        forward_only=next((f"its member {name}: {why}" for name, why in reasons if why), ""),
    )


def _check_fuse(fuse: object) -> None:
    ways = get_args(Fuse)
    if fuse not in ways:
        near = suggest(str(fuse), ways).rstrip(".")
        raise ModelError(f"fuse: expected one of {', '.join(map(repr, ways))}, got {fuse!r}{near}")


def check_shares(shares: object, *, count: int) -> list[float]:
    """Returns the shares scaled to sum to 1; equal ones for None.

    Raises `ModelError` if they are not one positive number a member.
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
    for own, other, template in (
        (member.classes, first.classes, "{} has {} classes, {} has {}"),
        (member.input_shape, first.input_shape, "{} takes inputs of shape {}, {} of shape {}"),
        (member.bounds, first.bounds, "{} takes inputs in {}, {} in {}"),
    ):
        if own != other:
            difference = template.format(name, own, first_name, other)
            raise ModelError(f"{difference}: they can't be fused")


def _check_answers(member: Classifier, name: str) -> None:
    """Checks a member against its declaration, since fused outputs would hide a fault."""
    inputs = _trial_inputs(member)
    alone = copy.copy(member)
    alone.passes = PassCount()  # the trial does not count as a pass
    try:
        with seeded_globals(SEED, inputs.device), alone.evaluating():
            probe(shielded(alone, inputs), inputs)
    except ModelError as error:
        raise ModelError(f"{name}: {error}") from error


def _trial_inputs(member: Classifier) -> Tensor:
    """Returns random inputs within the bounds of a member, where its tensors are."""
    home = next((each.device for each in tensors_of(member.module)), torch.device("cpu"))
    draws = torch.rand(TRIED, *member.input_shape, generator=torch.Generator().manual_seed(SEED))
    bounds = member.bounds
    return (bounds.low + draws * bounds.width).to(home)


def _precise(returned: object) -> Tensor:
    outputs = plain(returned, what="the output of a member", problem=OutputError)
    return outputs if outputs.dtype in (torch.float32, torch.float64) else outputs.float()
