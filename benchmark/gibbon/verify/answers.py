"""Answers of a model: predicted classes and confidences."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gibbon.datasets.base import Batch
from gibbon.models.classifier import Classifier, Watch
from gibbon.models.votes import Votes, one_vote, votes
from gibbon.verify.unchanged_state import unchanged_state

JUDGING = "judging"  # purpose of the draws that candidates and clean inputs are judged by


@dataclass(frozen=True)
class Answers:
    """Predictions of one model for a batch.

    Args:
        predicted: int64, shape (N,): the predicted classes (`gibbon.models.votes.Votes`).
        confidence: float32, shape (N,): the model's probability for them.
        wrong_share: float32, shape (N,): share of the draws that are misclassified; None for a
            model that is evaluated once.
    """

    predicted: Tensor
    confidence: Tensor
    wrong_share: Tensor | None = None


@dataclass(frozen=True)
class CleanAnswers:
    """Predictions of the source model for the unattacked batch.

    Args:
        answers: classes and confidences.
        saturated: bool, shape (N,): whether the true class has probability 1 in float32.
        margin: shape (N,): the output for the best wrong class minus that for the true one.
    """

    answers: Answers
    saturated: Tensor
    margin: Tensor


def clean_answers(source: Classifier, batch: Batch, *, watch: Watch | None = None) -> CleanAnswers:
    """Returns the source's answers for the clean inputs; arguments as for `clean_votes`."""
    clean = clean_votes(source, batch, watch=watch)
    return CleanAnswers(answers_from(clean), clean.certain, clean.margin)


def clean_votes(source: Classifier, batch: Batch, *, watch: Watch | None) -> Votes:
    """Returns the source's answers for the clean inputs, over its draws.

    They cost no pass if ``watch`` saw finite outputs while an attack ran.  Otherwise the source is
    evaluated, and `OutputError` is raised if an output is NaN or infinite.
    """
    outputs = watch.outputs if watch is not None else None
    if outputs is None or not bool(torch.isfinite(outputs).all()):
        return votes_for(source, batch, batch.inputs)
    return Votes(outputs.detach().unsqueeze(0), batch.labels, source.outputs)


def votes_for(
    classifier: Classifier, batch: Batch, points: Tensor, *, purpose: str = JUDGING
) -> Votes:
    """Returns a model's answers for points of a batch's examples, shape (N, *input_shape).

    Draws of a model that answers at random belong to the examples, and are independent for each
    ``purpose``.  Raises `OutputError` if an output is NaN or infinite.
    """
    with unchanged_state(classifier):
        if classifier.draws.count == 1:
            return one_vote(classifier, points, labels=batch.labels)
        streams = classifier.draws.streams(batch.ids, purpose)
        return votes(classifier, points, labels=batch.labels, streams=streams)


def answers_from(found: Votes) -> Answers:
    """Returns classes and confidences, and shares if there are several draws."""
    share = found.wrong_share if found.draws > 1 else None
    return Answers(found.predicted, found.confidence, share)


def ask(classifier: Classifier, inputs: Tensor, *, batch: Batch | None = None) -> Answers:
    """Returns a model's answers for inputs, shape (N, *input_shape).

    ``batch`` holds the examples that they belong to, for a model whose answers are random; without
    it the model is evaluated once.  Raises `OutputError` if an output is NaN or infinite.
    """
    if batch is not None:
        return answers_from(votes_for(classifier, batch, inputs))
    with unchanged_state(classifier):
        outputs = classifier.predict(inputs)
    return Answers(outputs.argmax(1), classifier.outputs.confidence(outputs))
