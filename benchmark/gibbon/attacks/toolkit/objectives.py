r"""What gradient attacks climb: objectives with one value an example, and their gradients.

Each is a function of the model's outputs and gives its gradient in closed form, up to a positive
factor that may differ from example to example: attacks follow directions, and in this form the
direction stays exact where a factor would round to zero.

Sources: the difference of logits ratio and its targeted form are from F. Croce and M. Hein,
"Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free attacks",
ICML 2020, sections 4 and 5, https://arxiv.org/abs/2003.01690; the margin is f6 of N. Carlini and D.
Wagner, "Towards evaluating the robustness of neural networks", IEEE S&P 2017, section V,
https://arxiv.org/abs/1608.04644.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gibbon.models.outputs import OutputRule, margin, margin_ascent

# An example counts as misled inside an attack only by more than the rounding of another batch size,
# relative to its largest output: the trust boundary asks again, in a batch of its own.
RESOLUTION = 1e-5
SMALLEST_SPREAD = 1e-12  # below which the difference of logits ratio is not divided


@dataclass(frozen=True)
class Objective(ABC):
    """What an attack climbs, for N examples.

    Args:
        labels: int64, shape (N,): the true classes.
    """

    labels: Tensor

    @abstractmethod
    def value(self, outputs: Tensor) -> Tensor:
        """Returns the objective of outputs of shape (N, K), shape (N,)."""

    @abstractmethod
    def ascent(self, outputs: Tensor) -> Tensor:
        """Returns, shape (N, K), a positive multiple of the objective's gradient in the outputs."""

    def misled(self, outputs: Tensor) -> Tensor:
        """Says which examples are misclassified by more than rounding, bool, shape (N,)."""
        return margin(outputs, self.labels) > RESOLUTION * outputs.abs().amax(1)

    def take(self, index: Tensor) -> Objective:
        """Returns the objective of some of the examples: ``index`` is a mask or positions."""
        return replace(self, labels=self.labels[index])


@dataclass(frozen=True)
class CrossEntropy(Objective):
    """The loss that the model was trained with, in its exact form.

    Args:
        rule: what the model's outputs mean.
    """

    rule: OutputRule

    def value(self, outputs: Tensor) -> Tensor:
        """Returns the loss of the true class."""
        return self.rule.exact_loss(outputs, self.labels)

    def ascent(self, outputs: Tensor) -> Tensor:
        """Returns the exact direction (`OutputRule.ascent`)."""
        return self.rule.ascent(outputs, self.labels)


@dataclass(frozen=True)
class TargetedCrossEntropy(Objective):
    """Minus the loss of a target class.

    Args:
        rule: what the model's outputs mean.
        targets: int64, shape (N,): the classes to aim at.
    """

    rule: OutputRule
    targets: Tensor

    def value(self, outputs: Tensor) -> Tensor:
        """Returns minus the loss of the target."""
        return self.rule.exact_loss(outputs, self.targets).neg()

    def ascent(self, outputs: Tensor) -> Tensor:
        """Returns minus the exact direction of the target's loss."""
        return self.rule.ascent(outputs, self.targets).neg()

    def take(self, index: Tensor) -> TargetedCrossEntropy:
        """Returns the objective of some of the examples."""
        return replace(self, labels=self.labels[index], targets=self.targets[index])


@dataclass(frozen=True)
class Margin(Objective):
    """The best wrong class's output minus the true one's."""

    def value(self, outputs: Tensor) -> Tensor:
        """Returns the margin."""
        return margin(outputs, self.labels)

    def ascent(self, outputs: Tensor) -> Tensor:
        """Returns its gradient."""
        return margin_ascent(outputs, self.labels)


@dataclass(frozen=True)
class DLR(Objective):
    r"""The difference of logits ratio.

    .. math::
        \mathrm{DLR}(x, y) = -\frac{z_y - \max_{i \ne y} z_i}{z_{\pi_1} - z_{\pi_3}}

    with :math:`\pi` the order of decreasing outputs.  Adding to all outputs or scaling them changes
    nothing, so that it never saturates.  With fewer than three classes there is no third output:
    it is the margin then, undivided.
    """

    def value(self, outputs: Tensor) -> Tensor:
        """Returns the ratio, -1 to 0 where classified correctly."""
        return margin(outputs, self.labels) / _spread(outputs, of=_THREE)

    def ascent(self, outputs: Tensor) -> Tensor:
        """Returns the gradient times the divisor."""
        return _quotient(
            margin_ascent(outputs, self.labels), self.value(outputs), outputs, of=_THREE
        )


@dataclass(frozen=True)
class TargetedDLR(Objective):
    r"""The targeted difference of logits ratio.

    .. math::
        -\frac{z_y - z_t}{z_{\pi_1} - (z_{\pi_3} + z_{\pi_4}) / 2}

    With fewer than four classes there is no fourth output: it is :math:`z_t - z_y` then, undivided.

    Args:
        targets: int64, shape (N,): the classes to aim at.
    """

    targets: Tensor

    def value(self, outputs: Tensor) -> Tensor:
        """Returns the ratio, positive where the target is above the true class."""
        towards = outputs.gather(1, self.targets.unsqueeze(1)).squeeze(1)
        away = outputs.gather(1, self.labels.unsqueeze(1)).squeeze(1)
        return (towards - away) / _spread(outputs, of=_FOUR)

    def ascent(self, outputs: Tensor) -> Tensor:
        """Returns the gradient times the divisor."""
        towards = torch.zeros_like(outputs).scatter_(1, self.targets.unsqueeze(1), 1.0)
        towards.scatter_(1, self.labels.unsqueeze(1), -1.0)
        return _quotient(towards, self.value(outputs), outputs, of=_FOUR)

    def take(self, index: Tensor) -> TargetedDLR:
        """Returns the objective of some of the examples."""
        return replace(self, labels=self.labels[index], targets=self.targets[index])


# The divisor as weights of the outputs in decreasing order.
_THREE = (1.0, 0.0, -1.0)
_FOUR = (1.0, 0.0, -0.5, -0.5)

# How many classes a model must have for there to be a divisor.
DLR_CLASSES, TARGETED_DLR_CLASSES = len(_THREE), len(_FOUR)


def _spread(outputs: Tensor, *, of: tuple[float, ...]) -> Tensor:
    if outputs.shape[1] < len(of):
        return torch.ones_like(outputs[:, 0])
    weights = outputs.new_tensor(of)
    return (outputs.topk(len(of)).values * weights).sum(1).clamp(min=SMALLEST_SPREAD)


def _quotient(
    numerator: Tensor, value: Tensor, outputs: Tensor, *, of: tuple[float, ...]
) -> Tensor:
    """Returns the gradient of a quotient times its divisor: u' - (u / v) v'."""
    if outputs.shape[1] < len(of):
        return numerator
    weights = outputs.new_tensor(of).expand(len(outputs), -1)
    divisor = torch.zeros_like(outputs).scatter_(1, outputs.topk(len(of)).indices, weights)
    return numerator - value.unsqueeze(1) * divisor
