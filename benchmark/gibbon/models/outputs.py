r"""Output rules, which derive confidence, loss and ascent direction from a model's outputs.

A model declares one of these rules:

- `LOGITS`: unbounded scores; the softmax turns them into probabilities; trained with softmax
  cross-entropy.
- `PROBABILITIES`: non-negative numbers that sum to 1; trained with cross-entropy.
- `LOG_SCORES`: the logarithms of one probability a class that stand for themselves, each unit
  trained with its own Bernoulli cross-entropy, as in an RBF network; confidence is the winning
  unit's own output, unnormalised.
- `LOSS_SCORES`: minus the logarithm of the loss that each class would have if it were the true one,
  as an ensemble has it that is fused in its losses (`gibbon.models.ensemble`); the class of the
  smallest loss is predicted, with the confidence :math:`e^{-L}`.

All functions work example by example: outputs have shape (N, K), labels (N,), results (N,).
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor
from torch.nn import functional

# Largest distance from 1 of a row of probabilities' sum, and largest log-score: a float32 softmax
# over 1,000 classes is well within it.
RULE_TOLERANCE = 1e-3
# Largest distance from 1 of the sum of a row that looks like probabilities, declared or not, and of
# its logarithm from 0.  Logits seldom come as near.
LIKELY_SUM = 1e-4
FAR_BELOW = -16.0  # from here on log(1 + exp(d)) is exp(d) to the precision of float32


class OutputRule(ABC):
    """Interprets the outputs of a model."""

    name: str

    def problem(self, outputs: Tensor) -> str | None:
        """Returns a sentence about outputs that break the rule, or None if none do.

        None if any finite number keeps the rule, as a logit does.
        """
        return None

    @abstractmethod
    def confidence(self, outputs: Tensor) -> Tensor:
        """Returns the model's probability for the class it predicts."""

    @abstractmethod
    def true_class_probability(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Returns the model's probability for the true class, rounded to float32."""

    def log_probability(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Returns the logarithm of the model's probability for these classes, shape (N,).

        Its gradient does not underflow as that of the probability does, unless the model has
        rounded the probability to zero itself: then it is zero.
        """
        probability = self.true_class_probability(outputs, labels)
        return probability.clamp(min=torch.finfo(outputs.dtype).tiny).log()

    @abstractmethod
    def loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Returns the loss that the model was trained with."""

    def exact_loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Returns the loss in a form that does not round to zero if the softmax saturates.

        It is the loss itself for all rules but logits: the digits that a softmax inside of the
        model has lost can't be recovered, the loss of log-scores is linear in the true class's and
        does not saturate, and that of loss scores rounds to zero only if its logarithm is below
        -100.
        """
        return self.loss(outputs, labels)

    @abstractmethod
    def as_logits(self, outputs: Tensor) -> Tensor:
        """Returns scores, shape (N, K), for code that knows logits only.

        Their order of classes is that of the outputs, and their softmax the model's, if it has
        one.
        """

    @abstractmethod
    def ascent(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Returns a positive multiple of the loss's gradient with respect to the outputs, (N, K).

        The factor may differ between examples.  Unlike the gradient in float32 it does not vanish
        if the probability of the true class rounds to 1.
        """

    @abstractmethod
    def log_losses(self, outputs: Tensor) -> Tensor:
        r"""Returns the logarithm of the loss that each class would have as true class, (N, K).

        It is finite and differentiable, even if the loss itself rounds to zero, and smallest for
        the predicted class.
        """

    def __repr__(self) -> str:
        return f"<outputs: {self.name}>"


class Logits(OutputRule):
    """Softmax logits."""

    name = "logits"

    def confidence(self, outputs: Tensor) -> Tensor:
        """Returns the softmax maximum."""
        return functional.softmax(outputs, dim=1).amax(1)

    def true_class_probability(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Returns the softmax of the true class."""
        return _at(functional.softmax(outputs, dim=1), labels)

    def log_probability(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Returns the log-softmax of these classes."""
        return _at(functional.log_softmax(outputs, dim=1), labels)

    def loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Returns the softmax cross-entropy."""
        return functional.cross_entropy(outputs, labels, reduction="none")

    def exact_loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        r"""Returns :math:`\log(1 + e^d)`, with d the others' log-sum-exp minus :math:`z_y`."""
        others = outputs.scatter(1, labels.unsqueeze(1), -torch.inf)
        return functional.softplus(others.logsumexp(1) - _at(outputs, labels))

    def as_logits(self, outputs: Tensor) -> Tensor:
        """Returns the outputs."""
        return outputs

    def ascent(self, outputs: Tensor, labels: Tensor) -> Tensor:
        r"""Returns :math:`q - e_y`, with q the softmax over the classes other than y.

        The gradient of the cross-entropy is :math:`p - e_y`, where :math:`p_k = (1 - p_y)\,q_k`
        for the other classes and the entry of y is :math:`p_y - 1`: it is :math:`(1 - p_y)` times
        this.  In float32 the factor rounds to zero from a logit margin of about 17 on, and with
        it the entry of y; here it is never formed.
        """
        others = outputs.scatter(1, labels.unsqueeze(1), -torch.inf)
        return functional.softmax(others, dim=1).scatter_(1, labels.unsqueeze(1), -1.0)

    def log_losses(self, outputs: Tensor) -> Tensor:
        r"""Returns the logarithms of :math:`\log(1 + e^{d_k})`, :math:`d_k` as in `exact_loss`.

        For the winning class alone d may be far below zero, and stands for itself there.  Any other
        class has at most the probability 1/2, so that minus its log-softmax is exact.
        """
        winner = outputs.argmax(1, keepdim=True)
        lead = outputs.scatter(1, winner, -torch.inf).logsumexp(1, keepdim=True)
        own = _log_softplus(lead - outputs.gather(1, winner))
        losses = -functional.log_softmax(outputs, dim=1)
        return losses.scatter(1, winner, 1.0).log().scatter(1, winner, own)


class Probabilities(OutputRule):
    """Probabilities that sum to 1."""

    name = "probabilities"

    def problem(self, outputs: Tensor) -> str | None:
        """Returns a sentence if a row has a negative number or does not sum to 1."""
        lowest = float(outputs.min())
        if lowest < -RULE_TOLERANCE:
            return f"probabilities must not be negative, got {lowest:.4g}"
        total = outputs.sum(1)
        worst = float(total[(total - 1).abs().argmax()])
        if abs(worst - 1) > RULE_TOLERANCE:
            return f"each row of probabilities must sum to 1, got a sum of {worst:.6g}"
        return None

    def confidence(self, outputs: Tensor) -> Tensor:
        """Returns the largest probability."""
        return outputs.amax(1).clamp(0.0, 1.0)

    def true_class_probability(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Returns the probability of the true class."""
        return _at(outputs, labels)

    def loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Returns minus the logarithm of the true class's probability."""
        return functional.nll_loss(outputs.log(), labels, reduction="none")

    def as_logits(self, outputs: Tensor) -> Tensor:
        """Returns the logarithms: their softmax is the outputs; a probability of 0 stays finite."""
        return outputs.clamp(min=torch.finfo(outputs.dtype).tiny).log()

    def ascent(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Returns minus the unit vector of the true class: the gradient times its probability."""
        return torch.zeros_like(outputs).scatter_(1, labels.unsqueeze(1), -1.0)

    def log_losses(self, outputs: Tensor) -> Tensor:
        """Returns the logarithms of the losses; a loss of zero becomes float32's epsilon.

        Digits that the model's own softmax has lost can't be recovered.
        """
        return _log_above_zero(-self.as_logits(outputs))


class LogScores(OutputRule):
    """Logarithms of independent probabilities, one a class."""

    name = "log-scores"

    def problem(self, outputs: Tensor) -> str | None:
        """Returns a sentence if an output exceeds 0."""
        highest = float(outputs.max())
        if highest > RULE_TOLERANCE:
            return f"the logarithm of a probability must not exceed 0, got {highest:.4g}"
        return None

    def confidence(self, outputs: Tensor) -> Tensor:
        """Returns the winning unit's own output."""
        return outputs.amax(1).clamp(max=0.0).exp()

    def true_class_probability(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Returns the true class's unit's own output."""
        return _at(outputs, labels).exp()

    def log_probability(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Returns the outputs of these classes' units."""
        return _at(outputs, labels)

    def loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        r"""Returns :math:`-u_y - \sum_{k \ne y} \log(1 - e^{u_k})`."""
        missed = -torch.log(-torch.expm1(_below_zero(outputs)))
        return missed.scatter(1, labels.unsqueeze(1), -_at(outputs, labels).unsqueeze(1)).sum(1)

    def as_logits(self, outputs: Tensor) -> Tensor:
        """Returns the log-scores, whose probabilities need not sum to 1."""
        return outputs

    def ascent(self, outputs: Tensor, labels: Tensor) -> Tensor:
        r"""Returns the gradient itself: -1 for y and :math:`1 / (e^{-u_k} - 1)` for the others."""
        others = torch.expm1(-_below_zero(outputs)).reciprocal()
        return others.scatter_(1, labels.unsqueeze(1), -1.0)

    def log_losses(self, outputs: Tensor) -> Tensor:
        """Returns the logarithms of the losses.

        The loss of the winning class is summed without the term that its own score would have as a
        wrong class, which may exceed the whole loss.
        """
        below = outputs + (_below_zero(outputs) - outputs).detach()  # its gradient passes
        missed = -torch.log(-torch.expm1(below))
        winner = outputs.argmax(1, keepdim=True)
        own = missed.scatter(1, winner, 0.0).sum(1, keepdim=True)
        others = missed.sum(1, keepdim=True) - missed
        return _log_above_zero(others.scatter(1, winner, own) - outputs)


class LossScores(OutputRule):
    r"""Minus the logarithm of the loss that each class would have as the true one.

    The losses of a sure model are as small as :math:`e^{-1000}`, which no number holds; their
    logarithms are ordinary numbers, and so are the gradients of these.
    """

    name = "loss-scores"

    def confidence(self, outputs: Tensor) -> Tensor:
        r"""Returns :math:`e^{-L}` of the smallest loss, unnormalised."""
        return outputs.amax(1).neg().exp().neg().exp()

    def true_class_probability(self, outputs: Tensor, labels: Tensor) -> Tensor:
        r"""Returns :math:`e^{-L_y}`."""
        return _at(outputs, labels).neg().exp().neg().exp()

    def log_probability(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Returns minus the losses of these classes."""
        return _at(outputs, labels).neg().exp().neg()

    def loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Returns the loss of the true class."""
        return _at(outputs, labels).neg().exp()

    def as_logits(self, outputs: Tensor) -> Tensor:
        """Returns minus the losses: the mean of log-probabilities, if all members have logits."""
        return outputs.neg().exp().neg()

    def ascent(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Returns minus the unit vector of the true class: the gradient divided by the loss."""
        return torch.zeros_like(outputs).scatter_(1, labels.unsqueeze(1), -1.0)

    def log_losses(self, outputs: Tensor) -> Tensor:
        """Returns minus the outputs."""
        return -outputs


LOGITS = Logits()
PROBABILITIES = Probabilities()
LOG_SCORES = LogScores()
LOSS_SCORES = LossScores()


def margin(outputs: Tensor, labels: Tensor) -> Tensor:
    r"""Returns :math:`\max_{k \ne y} z_k - z_y`, shape (N,): positive if misclassified.

    Carlini and Wagner, "Towards evaluating the robustness of neural networks", 2017, f6 without
    its floor, negated.

    >>> margin(torch.tensor([[3.0, 1.0, 2.0]]), torch.tensor([0]))
    tensor([-1.])
    """
    others = outputs.scatter(1, labels.unsqueeze(1), -torch.inf)
    return others.amax(1) - _at(outputs, labels)


def margin_ascent(outputs: Tensor, labels: Tensor) -> Tensor:
    """Returns the gradient of `margin` with respect to the outputs, shape (N, K)."""
    rival = outputs.scatter(1, labels.unsqueeze(1), -torch.inf).argmax(1)
    direction = torch.zeros_like(outputs).scatter_(1, labels.unsqueeze(1), -1.0)
    return direction.scatter_(1, rival.unsqueeze(1), 1.0)


def _at(values: Tensor, labels: Tensor) -> Tensor:
    return values.gather(1, labels.unsqueeze(1)).squeeze(1)


def _below_zero(outputs: Tensor) -> Tensor:
    # u = 0 exactly (an input at a unit's centre) would give an infinite loss for a wrong class.
    return outputs.clamp(max=-torch.finfo(outputs.dtype).eps)


def _log_softplus(values: Tensor) -> Tensor:
    r"""Returns :math:`\log \log(1 + e^d)`, which is d itself once :math:`e^d` is small."""
    small = values < FAR_BELOW
    return torch.where(small, values, functional.softplus(values.clamp(min=FAR_BELOW)).log())


def _log_above_zero(losses: Tensor) -> Tensor:
    """Returns logarithms of losses, raised to epsilon; gradients pass as without the raising."""
    floor = torch.finfo(losses.dtype).eps
    return (losses + (losses.clamp(min=floor) - losses).detach()).log()


def look_like_probabilities(outputs: Tensor) -> bool:
    """Returns whether rows of outputs, shape (N, K), are not negative and sum to 1.

    >>> look_like_probabilities(torch.tensor([[0.2, 0.8], [0.5, 0.5]]))
    True
    >>> look_like_probabilities(torch.tensor([[0.2, 0.9], [0.5, 0.5]]))
    False
    """
    sums = outputs.double().sum(1)
    return bool((outputs >= 0).all() and ((sums - 1).abs() <= LIKELY_SUM).all())
