"""The trust boundary: the only place that says an example is adversarial.

An attack proposes; here its candidates are checked (shape, dtype, finiteness, bounds, distance)
and the model is asked again, under ``no_grad``.  A candidate out of budget is not adversarial,
whatever the model says of it; nothing is clipped into the budget silently.

The cost is the floor of `DESIGN`: for a `DirectionAttack` at k epsilons one forward and one
backward pass, which give the clean prediction too, and k forward passes; fewer where what was
misled at a smaller epsilon is carried (``before`` of `judge`).  For a
`MinimalNormAttack` it is one search and one forward pass at any number of epsilons: at each the
candidate is the point found or the clean input, and what the model says of both is known.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice

import torch
from torch import Tensor

from gibbon.attacks.base import Attack, DirectionAttack, move, tries_of
from gibbon.attacks.minimal import MinimalNormAttack
from gibbon.core.errors import AttackError
from gibbon.core.rng import ExampleStreams
from gibbon.core.threat import Bounds, Norm, ThreatModel, Verdict
from gibbon.datasets.base import Batch
from gibbon.metrics.distances import like
from gibbon.metrics.validity import check, check_form
from gibbon.models.classifier import Classifier, Watch
from gibbon.models.outputs import margin
from gibbon.verify.answers import Answers, _clean_outputs, answers_from
from gibbon.verify.search import _Asked, _found, _Near, _Point, _Search


@dataclass(frozen=True)
class Judged:
    """The candidates that count, one an example, and what was found.

    Args:
        candidates: shape (N, *input_shape); the clean input stands where one was not valid.
        answers: what the source said of them, or None where it was not asked.
        verdict: int64, shape (N,), a `Verdict` each.
        distance: float32, shape (N,), in the norm of the threat model.
        any_misled: bool, shape (N,): misclassified by any valid candidate that was tried.
        misled_by: int64, shape (N,), the position of the first try that misled, -1 where none did;
            None where there was one try.
        nearest: float32, shape (N,), the smallest adversarial distance (see `smallest`); None but
            for a `MinimalNormAttack`.
    """

    candidates: Tensor
    answers: Answers | None
    verdict: Tensor
    distance: Tensor
    any_misled: Tensor
    misled_by: Tensor | None = None
    nearest: Tensor | None = None


def judge_clean(source: Classifier, batch: Batch, *, watch: Watch | None = None) -> Judged:
    """Returns the clean inputs as what was found at epsilon zero; ``watch`` as in `judge`."""
    answers = answers_from(source, _clean_outputs(source, batch, watch=watch))
    return Judged(
        batch.inputs,
        answers,
        verdict=torch.full_like(batch.labels, Verdict.VALID),
        distance=torch.zeros_like(batch.labels, dtype=torch.float32),
        any_misled=answers.predicted != batch.labels,
    )


def propose(
    attack: Attack,
    source: Classifier,
    batch: Batch,
    *,
    threats: Sequence[ThreatModel],
    streams: ExampleStreams,
) -> Iterator[Iterator[Tensor]]:
    """Yields for each threat model, in order, the candidates of an attack, one tensor a try.

    Work that the threat models share is done once, when the first is asked for.
    """
    if isinstance(attack, DirectionAttack):
        labels = batch.labels.clone()
        direction = attack.direction(source, batch.inputs, labels=labels, streams=streams)
        check_form(direction, batch.inputs, what="direction")
        for threat in threats:
            yield _Along(batch.inputs, direction, threat=threat)
    elif isinstance(attack, MinimalNormAttack):
        searches: dict[tuple[Norm, Bounds | None], _Search] = {}
        for threat in threats:
            space = (threat.norm, threat.bounds)
            if space not in searches:
                found = _found(attack, source, batch, threat=threat, streams=streams)
                searches[space] = _Search(found, norm=threat.norm, bounds=threat.bounds)
            yield _Near(searches[space], batch.inputs, threat=threat)
    else:
        for threat in threats:
            yield tries_of(
                attack, source, batch.inputs, labels=batch.labels, threat=threat, streams=streams
            )


def judge(
    source: Classifier,
    batch: Batch,
    *,
    proposed: Iterable[Tensor],
    threat: ThreatModel,
    ask_source: bool = True,
    watch: Watch | None = None,
    before: Judged | None = None,
) -> Judged:
    """Returns which candidates count, and what the source says of them.

    Of several tries the one with the largest margin of a wrong class over the true one counts; so
    an example is misled if any try misleads it.  Where none does, an invalid try stands before the
    valid ones, so that its flag is raised.  ``ask_source=False`` saves the forward pass where there
    is one try and the source's answers are known already.

    Of a search for the nearest adversarial examples the source is asked once, for all epsilons; the
    clean input also stands where it is misclassified and the point found is not.  ``watch`` saves
    asking of the clean inputs where the attack did.

    ``before`` is what was found at a smaller epsilon, or by `judge_clean`: what misled there counts
    here too, and the source is asked of the other examples alone.

    Raises `AttackError` for candidates of another shape or dtype, or where there are none.
    """
    if before is not None:
        return _carried(before, source, batch, proposed=proposed, threat=threat)
    if isinstance(proposed, _Near):
        asked = proposed.search.asked(source, batch, watch=watch)
        known = (_composed(source, batch, point, asked, threat=threat) for point in asked.points)
        return replace(_best(known, batch.labels), nearest=asked.nearest)
    tries = _checked(source, batch, proposed=proposed, threat=threat)
    if not ask_source:
        ahead = list(islice(tries, 2))
        if len(ahead) == 1:
            return ahead[0].judged
        tries = chain(ahead, tries)  # several: now they must be compared
    return _best((_answered(source, each, batch.labels) for each in tries), batch.labels)


def smallest(
    source: Classifier,
    batch: Batch,
    *,
    found: Sequence[Tensor],
    norm: Norm,
    bounds: Bounds | None,
    watch: Watch | None = None,
) -> Tensor:
    """Returns the smallest adversarial distance of each example, float32, shape (N,).

    That is the least distance among the points found, one tensor a try, that are finite, within the
    bounds and misclassified by the source, which is asked here.  It is 0 where the clean input is
    misclassified, and NaN where nothing was found.
    """
    return _Search(found, norm=norm, bounds=bounds).asked(source, batch, watch=watch).nearest


@dataclass(frozen=True)
class _Try:
    """One candidate an example: what was found, and what the source said of it."""

    judged: Judged
    sound: bool  # all of them are valid
    outputs: Tensor | None = None

    def rank(self, labels: Tensor) -> Tensor:
        """Returns what to compare tries by, shape (N,).

        Positive for those that mislead, by their margin; zero for invalid ones, so that they show
        where nothing else misleads; negative for the rest.
        """
        if self.outputs is None:
            raise AttackError("candidates can't be ranked before the source is asked")
        margins = margin(self.outputs, labels)
        tiny = torch.finfo(margins.dtype).tiny
        misled = self.judged.any_misled
        ranks = torch.where(misled, margins.clamp(min=tiny), margins.clamp(max=-tiny))
        return ranks.masked_fill(self.judged.verdict != Verdict.VALID, 0.0)


class _Along(Iterator[Tensor]):
    """The one try of a `DirectionAttack` at one epsilon; it can be made of some examples alone."""

    def __init__(self, inputs: Tensor, direction: Tensor, *, threat: ThreatModel) -> None:
        self._inputs = inputs
        self._direction = direction
        self._threat = threat
        self._tried = False

    def __next__(self) -> Tensor:
        if self._tried:
            raise StopIteration
        self._tried = True
        return move(self._inputs, self._direction, threat=self._threat)

    def of(self, rows: Tensor) -> Tensor:
        """Returns the candidates of the examples at these positions, int64, shape (M,)."""
        return move(self._inputs[rows], self._direction[rows], threat=self._threat)


def _carried(
    before: Judged,
    source: Classifier,
    batch: Batch,
    *,
    proposed: Iterable[Tensor],
    threat: ThreatModel,
) -> Judged:
    """Returns what was found before, and in the place of what misled nobody what is found now."""
    if not isinstance(proposed, _Along):
        raise AttackError("what misled before is carried within a batch along one direction only")
    rows = (~before.any_misled).nonzero().flatten()
    if not len(rows):
        return before
    left = Batch(batch.ids[rows], batch.inputs[rows], batch.labels[rows])
    now = judge(source, left, proposed=[proposed.of(rows)], threat=threat)
    if before.answers is None or now.answers is None:
        raise AttackError("what misled can't be carried before the source is asked")

    def put(old: Tensor, new: Tensor) -> Tensor:
        return old.index_copy(0, rows, new)

    return Judged(
        put(before.candidates, now.candidates),
        Answers(
            put(before.answers.predicted, now.answers.predicted),
            put(before.answers.confidence, now.answers.confidence),
        ),
        put(before.verdict, now.verdict),
        put(before.distance, now.distance),
        put(before.any_misled, now.any_misled),
    )


def _composed(
    source: Classifier, batch: Batch, point: _Point, asked: _Asked, *, threat: ThreatModel
) -> _Try:
    """Returns what one try of a search comes to at one epsilon, without asking the source."""
    taken = (point.distance <= threat.radius) & (point.misled | ~asked.clean_wrong)
    candidates = torch.where(like(taken, batch.inputs), point.found, batch.inputs)
    tried = _check(candidates, batch, threat=threat, bounds=source.bounds)
    return _with_outputs(
        source, tried, torch.where(taken.unsqueeze(1), point.outputs, asked.clean), batch.labels
    )


def _checked(
    source: Classifier, batch: Batch, *, proposed: Iterable[Tensor], threat: ThreatModel
) -> Iterator[_Try]:
    for candidates in proposed:
        check_form(candidates, batch.inputs, what="candidate")
        yield _check(candidates.detach(), batch, threat=threat, bounds=source.bounds)


def _best(tries: Iterable[_Try], labels: Tensor) -> Judged:
    best: _Try | None = None
    first: Tensor | None = None
    for position, tried in enumerate(tries):
        if best is None:
            best = tried
            continue
        if first is None:  # there are several
            first = torch.where(best.judged.any_misled, 0, torch.full_like(labels, -1))
        first = torch.where((first < 0) & tried.judged.any_misled, position, first)
        best = _better(best, tried, labels)
    if best is None:
        raise AttackError("the attack proposed no candidate")
    return replace(best.judged, misled_by=first)


def _check(candidates: Tensor, batch: Batch, *, threat: ThreatModel, bounds: Bounds) -> _Try:
    found = check(candidates, batch.inputs, threat=threat, bounds=bounds)
    nobody = torch.zeros_like(found.verdict, dtype=torch.bool)
    judged = Judged(found.candidates, None, found.verdict, found.distance, nobody)
    return _Try(judged, found.sound)


def _answered(source: Classifier, tried: _Try, labels: Tensor) -> _Try:
    return _with_outputs(source, tried, source.predict(tried.judged.candidates), labels)


def _with_outputs(source: Classifier, tried: _Try, outputs: Tensor, labels: Tensor) -> _Try:
    judged = tried.judged
    answers = answers_from(source, outputs)
    misled = answers.predicted != labels
    if not tried.sound:
        misled &= judged.verdict == Verdict.VALID
    return _Try(replace(judged, answers=answers, any_misled=misled), tried.sound, outputs)


def _better(one: _Try, other: _Try, labels: Tensor) -> _Try:
    take = other.rank(labels) > one.rank(labels)
    old, new = one.judged, other.judged
    if old.answers is None or new.answers is None or one.outputs is None or other.outputs is None:
        raise AttackError("candidates can't be compared before the source is asked")
    answers = Answers(
        torch.where(take, new.answers.predicted, old.answers.predicted),
        torch.where(take, new.answers.confidence, old.answers.confidence),
    )
    chosen = Judged(
        torch.where(like(take, old.candidates), new.candidates, old.candidates),
        answers,
        torch.where(take, new.verdict, old.verdict),
        torch.where(take, new.distance, old.distance),
        old.any_misled | new.any_misled,
    )
    outputs = torch.where(take.unsqueeze(1), other.outputs, one.outputs)
    return _Try(chosen, one.sound and other.sound, outputs)
