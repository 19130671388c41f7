"""Answers of a model over several draws of its random numbers: shares instead of yes or no.

A model that answers at random is evaluated several times on each input.  An example's outcome is
then the share of the draws that misclassify it; where a yes or no is needed, an example counts as
misclassified if more than half of its draws are wrong.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional

from gibbon.core.rng import ExampleStreams
from gibbon.models.classifier import Classifier
from gibbon.models.outputs import OutputRule, margin
from gibbon.models.pass_count import uncounted
from gibbon.models.random_draws import draws_by_row, predicted_draws

MAJORITY = 0.5


@dataclass(frozen=True)
class Votes:
    """The answers of a model to one input of each example.

    Args:
        drawn: shape (draws, N, K): the outputs.
        labels: int64, shape (N,): the true classes.
        rule: interprets the outputs.

    >>> from gibbon.models.outputs import LOGITS
    >>> drawn = torch.tensor([[[2.0, 0.0]], [[0.0, 1.0]], [[0.0, 1.0]]])
    >>> votes = Votes(drawn, torch.tensor([0]), LOGITS)
    >>> votes.predicted, votes.wrong_share
    (tensor([1]), tensor([0.6667]))
    """

    drawn: Tensor
    labels: Tensor
    rule: OutputRule

    @property
    def draws(self) -> int:
        """Number of draws."""
        return len(self.drawn)

    @cached_property
    def outputs(self) -> Tensor:
        """The outputs, shape (N, K), a mean over the draws."""
        return self.drawn[0] if self.draws == 1 else self.drawn.mean(0)

    @cached_property
    def wrong_share(self) -> Tensor:
        """Share of the draws that are misclassified, float32, shape (N,)."""
        return (self.drawn.argmax(2) != self.labels).float().mean(0)

    @cached_property
    def predicted(self) -> Tensor:
        """The predicted class, int64, shape (N,).

        Of several draws it is the most frequent wrong class if more than half of them are wrong,
        else the true class.
        """
        if self.draws == 1:
            return self.outputs.argmax(1)
        tally = functional.one_hot(self.drawn.argmax(2), self.drawn.shape[2]).sum(0)
        rival = tally.scatter(1, self.labels.unsqueeze(1), -1).argmax(1)
        return torch.where(self.wrong_share > MAJORITY, rival, self.labels)

    @cached_property
    def confidence(self) -> Tensor:
        """The model's probability for the predicted class, float32, shape (N,).

        Of several draws it is the mean over those that predict that class.
        """
        if self.draws == 1:
            return self.rule.confidence(self.outputs)
        confidence = self.rule.confidence(self.drawn.flatten(0, 1)).view(self.draws, -1)
        agree = self.drawn.argmax(2) == self.predicted
        return (confidence * agree).sum(0) / agree.sum(0)

    @property
    def certain(self) -> Tensor:
        """Whether the true class has probability 1 in float32, in all draws, bool, shape (N,)."""
        flat, labels = self.drawn.flatten(0, 1), self.labels.repeat(self.draws)
        sure: Tensor = self.rule.true_class_probability(flat, labels) == 1
        return sure.view(self.draws, -1).all(0)

    @cached_property
    def margin(self) -> Tensor:
        """The output for the best wrong class minus that for the true one, shape (N,)."""
        return margin(self.outputs, self.labels)

    @cached_property
    def lead(self) -> Tensor:
        """The value to choose between inputs by, shape (N,); positive if misclassified.

        It is the margin of the best wrong class over the true one.  Of several draws it is the
        share of wrong draws less a half; the margin decides between equal shares.
        """
        if self.draws == 1:
            return self.margin
        # Less than half a step of the share, so that the margin changes neither order nor sign.
        step = 1 / self.draws
        return self.wrong_share - MAJORITY - step / 4 + self.margin.tanh() * step / 8

    def split(self, number: int) -> list[Votes]:
        """Returns the answers to this many groups of equal size, in order.

        What attacks are judged by is computed once for all groups.
        """
        computed = ("outputs", "predicted", "confidence", "margin")
        drawn, labels = self.drawn.chunk(number, 1), self.labels.chunk(number)
        parts = [Votes(*each, self.rule) for each in zip(drawn, labels, strict=True)]
        for name in computed:
            for part, value in zip(parts, getattr(self, name).chunk(number), strict=True):
                vars(part)[name] = value  # where `cached_property` keeps it
        return parts

    def where(self, mask: Tensor, other: Votes) -> Votes:
        """Returns these answers if the mask, bool, shape (N,), is set, else the other ones."""
        return replace(self, drawn=torch.where(mask.view(1, -1, 1), self.drawn, other.drawn))


def one_vote(classifier: Classifier, inputs: Tensor, *, labels: Tensor) -> Votes:
    """Returns a model's answers to inputs, shape (N, *input_shape), from one pass.

    Raises `OutputError` if an output is NaN or infinite.
    """
    return Votes(classifier.predict(inputs).unsqueeze(0), labels, classifier.outputs)


def votes(
    classifier: Classifier, inputs: Tensor, *, labels: Tensor, streams: ExampleStreams
) -> Votes:
    """Returns a model's answers to inputs, over as many draws as the classifier declares.

    Args:
        classifier: the model; ``draws.count`` forward passes an example.
        inputs: shape (N, *input_shape).
        labels: int64, shape (N,).
        streams: random numbers, one stream an example, which seed the draws.

    Raises `OutputError` if an output is NaN or infinite.
    """
    draws, rule = classifier.draws, classifier.outputs
    if draws.count == 1:
        return one_vote(classifier, inputs, labels=labels)
    by_row = draws.by_row
    if by_row is None:
        with uncounted(classifier.passes):
            by_row = draws_by_row(classifier.module, inputs)
    drawn = predicted_draws(
        classifier.predict, inputs, streams=streams, count=draws.count, by_row=by_row
    )
    return Votes(drawn, labels, rule)
