"""The target class of a targeted attack, and the objective that leads to it.

Sources of the rules: A. Kurakin, I. Goodfellow and S. Bengio, "Adversarial examples in the physical
world", 2016, section 2.3 (the least likely class), https://arxiv.org/abs/1607.02533;
N. Carlini and D. Wagner, "Towards evaluating the robustness of neural networks", IEEE S&P 2017,
section III (a class at random; the easiest one), https://arxiv.org/abs/1608.04644.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from gibbon.attacks.toolkit.objectives import CrossEntropy, Objective, TargetedCrossEntropy
from gibbon.core.errors import AttackError
from gibbon.core.rng import ExampleStreams
from gibbon.models.classifier import NO_TARGET, Classifier

FixedClass = Annotated[int, Field(ge=0)]  # the position of a class among the model's
Target = Literal["none", "random", "least-likely", "second"] | FixedClass
TargetRule = Literal["random", "least-likely", "second"] | int


def choose_targets(
    rule: TargetRule, outputs: Tensor, labels: Tensor, streams: ExampleStreams
) -> Tensor:
    """Returns a target class for each example, int64, shape (N,): never the true one.

    Args:
        rule: ``"random"``, any other class with equal probability; ``"least-likely"``, the other
            class with the smallest output; ``"second"``, the one with the largest; or a class,
            which examples of that class itself can't have: they take the ``"second"``.
        outputs: the model's outputs for the clean inputs, shape (N, K), K at least 2.
        labels: int64, shape (N,): the true classes.
        streams: random numbers, one stream an example; used by ``"random"`` only.

    >>> outputs, labels = torch.tensor([[3.0, 1.0, 2.0]]), torch.tensor([0])
    >>> streams = ExampleStreams.derive(0, torch.tensor([7]))
    >>> [int(choose_targets(rule, outputs, labels, streams)) for rule in ("least-likely", "second")]
    [1, 2]
    """
    if isinstance(rule, int) and rule >= outputs.shape[1]:
        raise AttackError(
            f"target {rule} is no class of the model, whose classes are 0 to {outputs.shape[1] - 1}"
        )
    if rule == "random":
        others = outputs.shape[1] - 1
        draws = streams.child("target").uniform((1,)).squeeze(1)
        chosen = draws.mul_(others).long().clamp_(max=others - 1)
        return chosen + (chosen >= labels)
    column = labels.unsqueeze(1)
    if rule == "least-likely":
        return outputs.scatter(1, column, torch.inf).argmin(1)
    second = outputs.scatter(1, column, -torch.inf).argmax(1)
    return second if rule == "second" else torch.where(labels == rule, second, rule)


def aim(rule: TargetRule, classifier: Classifier, labels: Tensor, targets: Tensor) -> None:
    """Reports the target classes of an attack, so that the share that reaches them is measured.

    Examples of a fixed class have none: their target is only the likeliest wrong class.
    """
    own = labels == rule if isinstance(rule, int) else torch.zeros_like(labels, dtype=torch.bool)
    classifier.aim(targets.masked_fill(own, NO_TARGET))


def choose_objective(
    target: Target, classifier: Classifier, inputs: Tensor, labels: Tensor, streams: ExampleStreams
) -> Objective:
    """Returns the objective: the loss of the true class, or minus that of a target class.

    One forward pass if the target depends on the clean outputs.  In a run that pass is the clean
    prediction, which is not made again.
    """
    if target == "none":
        return CrossEntropy(labels, classifier.outputs)
    if target == "random":
        clean = torch.empty(len(inputs), classifier.classes, device=inputs.device)
    else:
        with torch.no_grad():
            clean = classifier(inputs)
    targets = choose_targets(target, clean, labels, streams)
    aim(target, classifier, labels, targets)
    return TargetedCrossEntropy(labels, classifier.outputs, targets)
