"""Answers of a model: predicted classes and confidences."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gibbon.datasets.base import Batch
from gibbon.models.classifier import Classifier, Watch


@dataclass(frozen=True)
class Answers:
    """Predictions of one model for a batch.

    Args:
        predicted: int64, shape (N,): the predicted classes.
        confidence: float32, shape (N,): the model's probability for them.
    """

    predicted: Tensor
    confidence: Tensor


@dataclass(frozen=True)
class CleanAnswers:
    """Predictions of the source model for the unattacked batch.

    Args:
        answers: classes and confidences.
        saturated: bool, shape (N,): whether the true class has probability 1 in float32.
    """

    answers: Answers
    saturated: Tensor


def clean_answers(source: Classifier, batch: Batch, *, watch: Watch | None = None) -> CleanAnswers:
    """Returns the source's answers for the clean inputs; arguments as for `clean_outputs`."""
    outputs = clean_outputs(source, batch, watch=watch)
    certain = source.outputs.true_class_probability(outputs, batch.labels) == 1
    return CleanAnswers(answers_from(source, outputs), certain)


def clean_outputs(source: Classifier, batch: Batch, *, watch: Watch | None) -> Tensor:
    """Returns the source's outputs for the clean inputs, shape (N, K).

    They cost no pass if ``watch`` saw finite ones while an attack ran.  Otherwise the source is
    asked, and `OutputError` is raised if an output is NaN or infinite.
    """
    outputs = watch.outputs if watch is not None else None
    if outputs is None or not bool(torch.isfinite(outputs).all()):
        return source.predict(batch.inputs)
    return outputs.detach()


def answers_from(classifier: Classifier, outputs: Tensor) -> Answers:
    """Returns classes and confidences from finite outputs, shape (N, K)."""
    return Answers(outputs.argmax(1), classifier.outputs.confidence(outputs))


def ask(classifier: Classifier, inputs: Tensor) -> Answers:
    """Returns a model's answers for inputs.

    Raises `OutputError` if an output is NaN or infinite.
    """
    return answers_from(classifier, classifier.predict(inputs))
