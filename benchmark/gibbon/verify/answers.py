"""Answers of a model: predicted classes and confidences."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gibbon.datasets.base import Batch
from gibbon.models.classifier import Classifier, Watch


@dataclass(frozen=True)
class Answers:
    """What one model said of a batch.

    Args:
        predicted: int64, shape (N,): the predicted classes.
        confidence: float32, shape (N,): the model's probability for them.
    """

    predicted: Tensor
    confidence: Tensor


@dataclass(frozen=True)
class CleanAnswers:
    """What the source said of the unattacked batch.

    ``saturated`` (bool, shape (N,)) marks examples whose true class has probability 1 in float32.
    """

    answers: Answers
    saturated: Tensor


def clean_answers(source: Classifier, batch: Batch, *, watch: Watch | None = None) -> CleanAnswers:
    """Returns what the source says of clean inputs: what it was seen to say, else asked now."""
    outputs = _clean_outputs(source, batch, watch=watch)
    certain = source.outputs.true_class_probability(outputs, batch.labels) == 1
    return CleanAnswers(answers_from(source, outputs), certain)


def _clean_outputs(source: Classifier, batch: Batch, *, watch: Watch | None) -> Tensor:
    outputs = watch.outputs if watch is not None else None
    if outputs is None or not bool(torch.isfinite(outputs).all()):
        return source.predict(batch.inputs)
    return outputs.detach()


def answers_from(classifier: Classifier, outputs: Tensor) -> Answers:
    """Returns classes and confidences from finite outputs, shape (N, K)."""
    return Answers(outputs.argmax(1), classifier.outputs.confidence(outputs))


def ask(classifier: Classifier, inputs: Tensor) -> Answers:
    """Returns what a model says of inputs.  Raises `OutputError` where it says NaN."""
    return answers_from(classifier, classifier.predict(inputs))
