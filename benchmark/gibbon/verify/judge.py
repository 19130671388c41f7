"""Checks what an attack proposes, predicts again, and keeps one candidate for each example."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice
from typing import NamedTuple

import torch
from torch import Tensor

from gibbon.core.errors import AttackError
from gibbon.core.threat import ThreatModel, Verdict
from gibbon.datasets.base import Batch
from gibbon.metrics.distances import like
from gibbon.metrics.validity import Checked, check_form
from gibbon.models.classifier import Classifier, Watch
from gibbon.models.votes import Votes
from gibbon.verify.answers import (
    Answers,
    CleanAnswers,
    answers_from,
    clean_answers,
    votes_for,
)
from gibbon.verify.proposal import Proposal, TryResult

AGAIN = "judging again"  # purpose of the draws that a try is judged by once it is chosen


@dataclass(frozen=True)
class Judged:
    """The candidates that count, one for each example, with their verdicts.

    Args:
        candidates: shape (N, *input_shape); the clean input in place of an invalid candidate.
        answers: the source's answers for them; None if it was not asked.
        verdict: int64, shape (N,), a `Verdict` each.
        distance: float32, shape (N,), in the norm of the threat model.
        any_misled: bool, shape (N,): misclassified by any valid candidate that was tried.
        misled_by: int64, shape (N,): the position of the first try that is misclassified, -1 if
            none is; None if there was only one try.
        nearest: float32, shape (N,): the smallest adversarial distance
            (`gibbon.verify.proposal.MinimalNormSearch`); None unless the attack searches for it.
        margin: shape (N,): the source's output for the best wrong class minus that for the true
            one, at the candidates; None if it was not asked.
    """

    candidates: Tensor
    answers: Answers | None
    verdict: Tensor
    distance: Tensor
    any_misled: Tensor
    misled_by: Tensor | None = None
    nearest: Tensor | None = None
    margin: Tensor | None = None


def judge(
    source: Classifier,
    batch: Batch,
    *,
    proposed: Proposal,
    threat: ThreatModel,
    ask_source: bool = True,
    watch: Watch | None = None,
    before: Judged | None = None,
) -> Judged:
    """Checks candidates, predicts again, and returns the one that counts for each example.

    Of several tries the one with the largest margin of a wrong class over the true one counts, so
    an example is misclassified if any valid try is.  If none is, an invalid try is preferred to the
    valid ones, so that its flag is raised.

    A source that answers at random is evaluated on several draws (`gibbon.models.votes.Votes`).
    Of several tries the one with the largest share of wrong draws counts, and its share is that of
    other draws than it was chosen by, which would favour it.

    Args:
        source: the model under attack.
        batch: the clean inputs and their labels.
        proposed: the candidates.
        threat: the norm, the budget and the box to check them against.
        ask_source: if False, saves the forward pass over a single try, whose answers are not
            needed.  Several tries must be compared, and the outputs for a search are known.
        watch: saves the pass over the clean inputs if the attack made one.
        before: the result at a smaller epsilon, or of `judge_clean`.  Examples misclassified there
            count as misclassified here, and the source is asked about the others only.

    Raises `AttackError` for candidates of another shape or dtype, if there are none, and if
    ``before`` is given for an attack whose epsilons share no direction.
    """
    if before is not None:
        return _carried(before, source, batch, proposed=proposed, threat=threat)
    tries = proposed.tries(source, batch, watch=watch)
    if not ask_source:
        ahead = list(islice(tries, 2))
        if len(ahead) == 1 and ahead[0].votes is None:
            found = _checked(ahead[0], source, batch, threat=threat)
            nobody = torch.zeros_like(found.verdict, dtype=torch.bool)
            return Judged(found.candidates, None, found.verdict, found.distance, nobody)
        tries = chain(ahead, tries)
    return _best(tries, source, batch, threat=threat)


def judge_clean(source: Classifier, batch: Batch, *, watch: Watch | None = None) -> Judged:
    """Returns the clean inputs as the result at epsilon zero; ``watch`` as in `judge`."""
    return unattacked(clean_answers(source, batch, watch=watch), batch)


def unattacked(clean: CleanAnswers, batch: Batch) -> Judged:
    """Returns the clean inputs as the result at epsilon zero, given the source's answers."""
    return Judged(
        batch.inputs,
        clean.answers,
        verdict=torch.full_like(batch.labels, Verdict.VALID),
        distance=torch.zeros_like(batch.labels, dtype=torch.float32),
        any_misled=clean.answers.predicted != batch.labels,
        margin=clean.margin,
    )


def _carried(
    before: Judged, source: Classifier, batch: Batch, *, proposed: Proposal, threat: ThreatModel
) -> Judged:
    """Returns the earlier result, with the examples not misclassified there judged anew."""
    rows = (~before.any_misled).nonzero().flatten()
    remaining = proposed.take(rows)
    if not len(rows):
        return before
    left = Batch(batch.ids[rows], batch.inputs[rows], batch.labels[rows])
    now = judge(source, left, proposed=remaining, threat=threat)
    old, new = before.answers, now.answers
    if old is None or new is None or before.margin is None or now.margin is None:
        raise AttackError("misclassified examples can't be carried before the source is evaluated")

    def put(earlier: Tensor, anew: Tensor) -> Tensor:
        return earlier.index_copy(0, rows, anew)

    return Judged(
        put(before.candidates, now.candidates),
        Answers(
            put(old.predicted, new.predicted),
            put(old.confidence, new.confidence),
            None
            if old.wrong_share is None or new.wrong_share is None
            else put(old.wrong_share, new.wrong_share),
        ),
        put(before.verdict, now.verdict),
        put(before.distance, now.distance),
        put(before.any_misled, now.any_misled),
        margin=put(before.margin, now.margin),
    )


class _Answered(NamedTuple):
    """A checked candidate for each example, and the source's answer to it.

    Args:
        candidates, verdict, distance: as in `Judged`.
        votes: the source's answers.
        misclassified: bool, shape (N,): misclassified, and the candidate is valid.
    """

    candidates: Tensor
    verdict: Tensor
    distance: Tensor
    votes: Votes
    misclassified: Tensor

    def rank(self) -> Tensor:
        """Returns the value to choose between tries by, the largest first, shape (N,).

        Positive for misclassified candidates, by their lead; zero for invalid ones, so that they
        show if no other try is misclassified; negative for the rest.
        """
        lead = self.votes.lead
        tiny = torch.finfo(lead.dtype).tiny
        ranks = torch.where(self.misclassified, lead.clamp(min=tiny), lead.clamp(max=-tiny))
        return ranks.masked_fill(self.verdict != Verdict.VALID, 0.0)

    def or_better(self, other: _Answered) -> _Answered:
        """Returns for each example the candidate of the other try if that has a higher rank."""
        take = other.rank() > self.rank()

        def chosen(new: Tensor, old: Tensor) -> Tensor:
            return torch.where(like(take, old), new, old)

        return _Answered(
            chosen(other.candidates, self.candidates),
            chosen(other.verdict, self.verdict),
            chosen(other.distance, self.distance),
            other.votes.where(take, self.votes),
            chosen(other.misclassified, self.misclassified),
        )

    def again(self, source: Classifier, batch: Batch) -> _Answered:
        """Returns the candidates with answers of other draws than they were chosen by."""
        votes = votes_for(source, batch, self.candidates, purpose=AGAIN)
        wrong = (votes.predicted != batch.labels) & (self.verdict == Verdict.VALID)
        return self._replace(votes=votes, misclassified=wrong)


def _best(
    tries: Iterator[TryResult], source: Classifier, batch: Batch, *, threat: ThreatModel
) -> Judged:
    """Checks each try, evaluates the source on it, and returns the best for each example."""
    best: _Answered | None = None
    first: Tensor | None = None
    nearest: Tensor | None = None
    for position, tried in enumerate(tries):
        answered, nearest = _answered(tried, source, batch, threat=threat), tried.nearest
        if best is None:
            best = answered
            continue
        if first is None:
            first = torch.where(best.misclassified, 0, -1)
        first = torch.where((first < 0) & answered.misclassified, position, first)
        best = best.or_better(answered)
    if best is None:
        raise AttackError("the attack proposed no candidate")
    if first is not None and best.votes.draws > 1:
        best = best.again(source, batch)
        first = torch.where(best.misclassified, first.clamp(min=0), -1)
    found = best.candidates, answers_from(best.votes), best.verdict, best.distance
    margins = best.votes.margin
    return Judged(*found, best.misclassified, misled_by=first, nearest=nearest, margin=margins)


def _answered(
    tried: TryResult, source: Classifier, batch: Batch, *, threat: ThreatModel
) -> _Answered:
    found = _checked(tried, source, batch, threat=threat)
    votes = tried.answers(source, batch, found.candidates, sound=found.sound)
    wrong = votes.predicted != batch.labels
    if not found.sound:
        wrong &= found.verdict == Verdict.VALID
    return _Answered(found.candidates, found.verdict, found.distance, votes, wrong)


def _checked(tried: TryResult, source: Classifier, batch: Batch, *, threat: ThreatModel) -> Checked:
    check_form(tried.points, batch.inputs, what="candidate")
    return tried.check(batch.inputs, threat=threat, bounds=source.bounds)
