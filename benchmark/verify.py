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
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, islice

import torch
from torch import Tensor

from benchmark.attacks.base import Attack, DirectionAttack, move
from benchmark.attacks.candidates import (
    LINF_TOLERANCE,
    check,
    check_form,
    copied,
    outside,
    tries_of,
)
from benchmark.attacks.gradients import refuse_no_numbers
from benchmark.attacks.minimal import MinimalNormAttack, within
from benchmark.attacks.projections import like
from benchmark.classifier import Classifier, Watch
from benchmark.datasets.base import Batch
from benchmark.errors import AttackError
from benchmark.metrics.distances import distances
from benchmark.outputs import margin
from benchmark.records import Verdict
from benchmark.rng import ExampleStreams, seeded_globals
from benchmark.snapshot import Snapshot, equal
from benchmark.threat import Bounds, Norm, ThreatModel


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


@dataclass(frozen=True)
class Guarded:
    """What an attack is given: a batch whose inputs are a copy, and what is watched meanwhile."""

    batch: Batch
    watch: Watch


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


def answers_from(classifier: Classifier, outputs: Tensor) -> Answers:
    """Returns classes and confidences from finite outputs, shape (N, K)."""
    return Answers(outputs.argmax(1), classifier.outputs.confidence(outputs))


def ask(classifier: Classifier, inputs: Tensor) -> Answers:
    """Returns what a model says of inputs.  Raises `OutputError` where it says NaN."""
    return answers_from(classifier, classifier.predict(inputs))


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


@contextmanager
def guarding(
    source: Classifier, batch: Batch, *, seed: int = 0, room: int = 0
) -> Iterator[Guarded]:
    """While inside, an attack runs on a copy of the inputs, with global generators seeded for it.

    Our own attacks draw from streams; other people's may draw from torch, numpy or random, and do
    so from ``seed`` on.  Generators and torch's global settings are put back afterwards, and so are
    the model and the classifier, also after an exception.  ``room`` is the size of a full batch,
    where this one is smaller.

    Raises `AttackError` where the attack changed its inputs, the model or the classifier, and
    `OutputError` where an input gradient was not a number: ``sign(NaN)`` is 0 in torch, so that the
    attack would have stayed where it was and proved nothing.
    """
    snapshot = source.snapshot or Snapshot(source.module)
    fields = dict(source.__dict__)
    given = Batch(batch.ids, batch.inputs.clone(), batch.labels)
    watching = source.watching(given.inputs, room=room)
    with _global_state(batch.inputs.device, seed), watching as watch:
        try:
            yield Guarded(given, watch)
        finally:
            difference = snapshot.difference()
            if difference is not None:
                snapshot.restore()
            elif _changed(source, fields):
                difference = "changed the classifier"
            source.__dict__.clear()
            source.__dict__.update(fields)
    if difference is not None:
        raise AttackError(f"the attack {difference}")
    if given.inputs._version != watch.version or not equal(given.inputs, batch.inputs):
        raise AttackError("the attack changed its inputs in place")
    refuse_no_numbers(watch.gradients)


def _changed(source: Classifier, fields: dict[str, object]) -> bool:
    own = {key: value for key, value in source.__dict__.items() if key != "_watch"}
    before = {key: value for key, value in fields.items() if key != "_watch"}
    return own.keys() != before.keys() or any(own[key] is not before[key] for key in own)


@contextmanager
def _global_state(device: torch.device, seed: int) -> Iterator[None]:
    """While inside: seeded global generators; they and torch's settings are put back after."""
    strict, threads = torch.are_deterministic_algorithms_enabled(), torch.get_num_threads()
    lenient = torch.is_deterministic_algorithms_warn_only_enabled()
    with seeded_globals(seed, device):
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(strict, warn_only=lenient)
            if torch.get_num_threads() != threads:
                torch.set_num_threads(threads)


def _found(
    attack: MinimalNormAttack,
    source: Classifier,
    batch: Batch,
    *,
    threat: ThreatModel,
    streams: ExampleStreams,
) -> list[Tensor]:
    """Returns what one search finds, which serves every epsilon of the norm and box."""
    tries = attack.nearest(
        source,
        batch.inputs,
        labels=batch.labels.clone(),
        norm=threat.norm,
        bounds=threat.bounds,
        streams=streams,
    )
    return list(copied(tries, batch.inputs, what="point found"))


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


@dataclass(frozen=True)
class _Point:
    """What one try of a search found, and what the source says of it.

    Args:
        found: shape (N, *input_shape).
        outputs: shape (N, K): of the clean input where the point does not count.
        distance: shape (N,).
        misled: bool, shape (N,): finite, within the bounds and misclassified.
    """

    found: Tensor
    outputs: Tensor
    distance: Tensor
    misled: Tensor


@dataclass(frozen=True)
class _Asked:
    """What the source says of all that a search found, and of the clean inputs."""

    points: tuple[_Point, ...]
    clean: Tensor
    clean_wrong: Tensor
    nearest: Tensor


class _Search:
    """What one search for the nearest adversarial examples found; the source is asked once."""

    def __init__(self, found: Sequence[Tensor], *, norm: Norm, bounds: Bounds | None) -> None:
        self.found = found
        self.norm = norm
        self.bounds = bounds
        self._asked: _Asked | None = None

    def asked(self, source: Classifier, batch: Batch, *, watch: Watch | None) -> _Asked:
        """Returns the source's answers, which are asked for the first time only."""
        if self._asked is None:
            clean = _clean_outputs(source, batch, watch=watch)
            clean_wrong = clean.argmax(1) != batch.labels
            points = tuple(self._point(found, source, batch, clean) for found in self.found)
            nearest = torch.full_like(batch.labels, torch.inf, dtype=torch.float32)
            for point in points:
                reached = point.distance.float().masked_fill(~point.misled, torch.inf)
                nearest = torch.minimum(nearest, reached)
            nearest = nearest.masked_fill(clean_wrong, 0.0)
            nearest = nearest.masked_fill(torch.isinf(nearest), torch.nan)
            self._asked = _Asked(points, clean, clean_wrong, nearest)
        return self._asked

    def _point(self, found: Tensor, source: Classifier, batch: Batch, clean: Tensor) -> _Point:
        distance = distances(found, batch.inputs, norm=self.norm)
        counts = torch.isfinite(distance)
        if self.bounds is not None:
            slack = LINF_TOLERANCE * source.bounds.width
            counts &= ~outside(found, self.bounds, slack=slack)
        # Where nothing was found, or nothing that counts, the clean input stands: that is known.
        moved = counts & (found != batch.inputs).flatten(1).any(1)
        outputs = clean
        if bool(moved.any()):
            safe = torch.where(like(moved, found), found, batch.inputs)
            outputs = torch.where(moved.unsqueeze(1), source.predict(safe), clean)
        return _Point(found, outputs, distance, counts & (outputs.argmax(1) != batch.labels))


class _Near(Iterator[Tensor]):
    """The tries of a search at one epsilon, as candidates."""

    def __init__(self, search: _Search, inputs: Tensor, *, threat: ThreatModel) -> None:
        self.search = search
        self._tries = map(partial(within, inputs, threat=threat), search.found)

    def __next__(self) -> Tensor:
        return next(self._tries)


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
