"""The trust boundary: the only place that says an example is adversarial.

An attack proposes; here its candidates are checked (shape, dtype, finiteness, bounds, distance)
and the model is asked again, under ``no_grad``.  A candidate out of budget is not adversarial,
whatever the model says of it; nothing is clipped into the budget silently.

The cost is the floor of `DESIGN`: for a `DirectionAttack` at k epsilons one forward and one
backward pass, which give the clean prediction too, and k forward passes.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from benchmark.attacks.base import Attack, DirectionAttack, move
from benchmark.attacks.candidates import check, check_form, tries_of
from benchmark.attacks.minimal import MinimalNormAttack, within
from benchmark.classifier import Classifier, Watch
from benchmark.datasets.base import Batch
from benchmark.errors import AttackError, OutputError
from benchmark.outputs import margin
from benchmark.records import Verdict
from benchmark.rng import ExampleStreams
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
    """

    candidates: Tensor
    answers: Answers | None
    verdict: Tensor
    distance: Tensor
    any_misled: Tensor


def clean_answers(source: Classifier, batch: Batch, *, watch: Watch | None = None) -> CleanAnswers:
    """Returns what the source says of clean inputs: what it was seen to say, else asked now."""
    outputs = watch.outputs if watch is not None else None
    if outputs is None or not bool(torch.isfinite(outputs).all()):
        outputs = source.predict(batch.inputs)
    certain = source.outputs.true_class_probability(outputs, batch.labels) == 1
    return CleanAnswers(answers_from(source, outputs), certain)


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
            yield iter([move(batch.inputs, direction, threat=threat)])
    elif isinstance(attack, MinimalNormAttack):
        searched: dict[tuple[Norm, Bounds | None], list[Tensor]] = {}
        for threat in threats:
            space = (threat.norm, threat.bounds)
            if space not in searched:
                searched[space] = _found(attack, source, batch, threat=threat, streams=streams)
            yield map(partial(within, batch.inputs, threat=threat), searched[space])
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
) -> Judged:
    """Returns which candidates count, and what the source says of them.

    Of several tries the one with the largest margin of a wrong class over the true one counts; so
    an example is misled if any try misleads it.  Where none does, an invalid try stands before the
    valid ones, so that its flag is raised.  ``ask_source=False`` saves the forward pass where there
    is one try and the source's answers are known already.

    Raises `AttackError` for candidates of another shape or dtype, or where there are none.
    """
    best: _Try | None = None
    asked = ask_source
    for candidates in proposed:
        check_form(candidates, batch.inputs, what="candidate")
        checked = _check(candidates.detach(), batch, threat=threat, bounds=source.bounds)
        if best is not None and not asked:  # a second try: now they must be compared
            best, asked = _answered(source, best, batch.labels), True
        if asked:
            checked = _answered(source, checked, batch.labels)
        best = checked if best is None else _better(best, checked, batch.labels)
    if best is None:
        raise AttackError("the attack proposed no candidate")
    return best.judged


@contextmanager
def guarding(source: Classifier, batch: Batch, *, seed: int = 0) -> Iterator[Guarded]:
    """While inside, an attack runs on a copy of the inputs, with global generators seeded for it.

    Our own attacks draw from streams; other people's may draw from torch, numpy or random, and do
    so from ``seed`` on.  Generators and torch's global settings are put back afterwards, and so are
    the model and the classifier, also after an exception.

    Raises `AttackError` where the attack changed its inputs, the model or the classifier, and
    `OutputError` where an input gradient was not a number: ``sign(NaN)`` is 0 in torch, so that the
    attack would have stayed where it was and proved nothing.
    """
    snapshot = source.snapshot or Snapshot(source.module)
    fields = dict(source.__dict__)
    given = Batch(batch.ids, batch.inputs.clone(), batch.labels)
    with _global_state(batch.inputs.device, seed), source.watching(given.inputs) as watch:
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
    if watch.gradients is not None and not math.isfinite(watch.gradients.item()):
        raise OutputError(
            "the model's input gradient is NaN or infinite: look for a root or a norm at 0, or for "
            "0 / 0"
        )


def _changed(source: Classifier, fields: dict[str, object]) -> bool:
    own = {key: value for key, value in source.__dict__.items() if key != "_watch"}
    before = {key: value for key, value in fields.items() if key != "_watch"}
    return own.keys() != before.keys() or any(own[key] is not before[key] for key in own)


@contextmanager
def _global_state(device: torch.device, seed: int) -> Iterator[None]:
    """While inside: seeded global generators; they and torch's settings are put back after."""
    cuda = [device] if device.type == "cuda" else []
    metal = torch.mps.get_rng_state() if device.type == "mps" else None
    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002
    grad_mode, dtype = torch.is_grad_enabled(), torch.get_default_dtype()
    strict, threads = torch.are_deterministic_algorithms_enabled(), torch.get_num_threads()
    lenient = torch.is_deterministic_algorithms_warn_only_enabled()
    with torch.random.fork_rng(devices=cuda):
        # torch.manual_seed would queue a call for CUDA each time, on machines without it too.
        torch.default_generator.manual_seed(seed)
        if cuda:
            with torch.cuda.device(device):  # it may be another one than the current
                torch.cuda.manual_seed(seed)
        if metal is not None:
            torch.mps.manual_seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        random.seed(seed)
        try:
            yield
        finally:
            if metal is not None:
                torch.mps.set_rng_state(metal)
            random.setstate(python_state)
            np.random.set_state(numpy_state)  # noqa: NPY002
            torch.set_grad_enabled(grad_mode)
            torch.set_default_dtype(dtype)
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
    kept = []
    for found in tries:
        check_form(found, batch.inputs, what="point found")
        kept.append(found.detach().clone())
    return kept


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


def _check(candidates: Tensor, batch: Batch, *, threat: ThreatModel, bounds: Bounds) -> _Try:
    found = check(candidates, batch.inputs, threat=threat, bounds=bounds)
    nobody = torch.zeros_like(found.verdict, dtype=torch.bool)
    judged = Judged(found.candidates, None, found.verdict, found.distance, nobody)
    return _Try(judged, found.sound)


def _answered(source: Classifier, tried: _Try, labels: Tensor) -> _Try:
    judged = tried.judged
    outputs = source.predict(judged.candidates)
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
        torch.where(_like(take, old.candidates), new.candidates, old.candidates),
        answers,
        torch.where(take, new.verdict, old.verdict),
        torch.where(take, new.distance, old.distance),
        old.any_misled | new.any_misled,
    )
    outputs = torch.where(take.unsqueeze(1), other.outputs, one.outputs)
    return _Try(chosen, one.sound and other.sound, outputs)


def _like(mask: Tensor, points: Tensor) -> Tensor:
    return mask.view(-1, *(1,) * (points.ndim - 1))
