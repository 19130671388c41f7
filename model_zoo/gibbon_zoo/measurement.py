"""Measures the figures of a card: clean error, and error under three forms of FGSM.

Recipes were chosen by these figures; a benchmark run measures more, with intervals.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from gibbon.models.classifier import Classifier
from gibbon_zoo.architecture import Architecture
from gibbon_zoo.card import Figures
from gibbon_zoo.early_stopping import HeldOutFigures

BATCH = 500
Craft = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class _Score:
    error: float
    confidence_on_misclassified: float | None
    mean_confidence: float


def measure(classifier: Classifier, *, inputs: Tensor, labels: Tensor, epsilon: float) -> Figures:
    """Returns a classifier's figures on these examples.

    Args:
        classifier: any classifier; it is not changed.
        inputs: float32, shape (N, *input_shape), N at least 1.
        labels: int64, shape (N,).
        epsilon: L-infinity budget, in units of the inputs.
    """
    rule, bounds = classifier.outputs, classifier.bounds

    def exact(x: Tensor, y: Tensor) -> Tensor:
        _, gradient = classifier.ascend(x, lambda outputs: rule.ascent(outputs, y))
        return x + epsilon * gradient.sign()

    def naive(x: Tensor, y: Tensor) -> Tensor:
        return x + epsilon * classifier.loss_gradient(x, y).sign()

    def clipped(x: Tensor, y: Tensor) -> Tensor:
        return exact(x, y).clamp_(bounds.low, bounds.high)

    with classifier.evaluating():
        clean, fgsm, fgsm_naive, fgsm_clipped = (
            _score(classifier, craft, inputs, labels)
            for craft in (lambda x, y: x, exact, naive, clipped)
        )
    return Figures(
        clean_error=clean.error,
        mean_clean_confidence=clean.mean_confidence,
        fgsm_error=fgsm.error,
        fgsm_confidence=fgsm.confidence_on_misclassified,
        fgsm_naive_error=fgsm_naive.error,
        fgsm_naive_confidence=fgsm_naive.confidence_on_misclassified,
        fgsm_clipped_error=fgsm_clipped.error,
        fgsm_clipped_confidence=fgsm_clipped.confidence_on_misclassified,
    )


def clean_error(classifier: Classifier, *, inputs: Tensor, labels: Tensor) -> float:
    """Returns the share misclassified unattacked; arguments as for `measure`."""
    with classifier.evaluating():
        return _score(classifier, lambda x, y: x, inputs, labels).error


def held_out_figures(
    module: Architecture, *, inputs: Tensor, labels: Tensor, epsilon: float
) -> HeldOutFigures:
    """Returns the errors of a module in training: clean, and under FGSM, not clipped.

    FGSM takes the plain gradient of the loss, as the adversarial objective does.

    Args:
        module: called without dropout; the gradients of its parameters are not changed.
        inputs: float32, shape (N, ...), on the module's device.
        labels: int64, shape (N,).
        epsilon: L-infinity budget of FGSM; 0 to measure the clean error alone.
    """
    clean, attacked = 0, 0
    confidences = []
    for x, y in zip(torch.split(inputs, BATCH), torch.split(labels, BATCH), strict=True):
        leaf = x.detach().requires_grad_(epsilon > 0)
        with torch.set_grad_enabled(epsilon > 0):
            outputs = module(leaf)
        clean += int((outputs.argmax(1) != y).sum())
        if epsilon > 0:
            (gradient,) = torch.autograd.grad(module.outputs.loss(outputs, y).sum(), leaf)
            with torch.no_grad():
                outputs = module(x + epsilon * gradient.sign())
                wrong = outputs.argmax(1) != y
                attacked += int(wrong.sum())
                confidences.append(module.outputs.confidence(outputs)[wrong])
    count = len(labels)
    if epsilon == 0:
        return HeldOutFigures(clean_error=clean / count)
    return HeldOutFigures(
        clean_error=clean / count,
        adversarial_error=attacked / count,
        adversarial_confidence=float(torch.cat(confidences).mean()) if attacked else None,
    )


def _score(classifier: Classifier, craft: Craft, inputs: Tensor, labels: Tensor) -> _Score:
    wrong, confidence = [], []
    for x, y in zip(torch.split(inputs, BATCH), torch.split(labels, BATCH), strict=True):
        outputs = classifier.predict(craft(x, y))
        wrong.append(outputs.argmax(1) != y)
        confidence.append(classifier.outputs.confidence(outputs).double())
    misclassified, confidences = torch.cat(wrong), torch.cat(confidence)
    on_misclassified = float(confidences[misclassified].mean())
    return _Score(
        error=float(misclassified.double().mean()),
        confidence_on_misclassified=None if math.isnan(on_misclassified) else on_misclassified,
        mean_confidence=float(confidences.mean()),
    )
