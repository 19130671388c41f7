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
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from benchmark.attacks.base import Attack, DirectionAttack, move
from benchmark.classifier import Classifier, Watch
from benchmark.datasets.base import Batch
from benchmark.errors import AttackError
from benchmark.metrics.distances import distances
from benchmark.outputs import margin
from benchmark.records import Verdict
from benchmark.rng import ExampleStreams
from benchmark.threat import Bounds, Norm, ThreatModel

# How far a candidate may overstep by rounding.  Adding epsilon to a float32 of the size of the
# bounds errs by at most 2^-24 of that size, once a step; a Euclidean norm over d coordinates adds
# up the errors of all of them.
LINF_TOLERANCE = 1e-6
L2_TOLERANCE = 2.0**-23


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
class Judged:
    """The candidates that count, one an example, and what was found.

    Args:
        candidates: shape (N, *input_shape); the clean input stands where one was not finite.
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
        direction = attack.direction(source, batch.inputs, labels=batch.labels, streams=streams)
        _check_form(direction, batch.inputs, what="direction")
        for threat in threats:
            yield iter([move(batch.inputs, direction, threat=threat)])
    else:
        for threat in threats:
            yield _tries(attack, source, batch, threat=threat, streams=streams)


def judge(
    source: Classifier,
    batch: Batch,
    *,
    proposed: Iterable[Tensor],
    threat: ThreatModel,
    ask_source: bool = True,
) -> Judged:
    """Returns which candidates count, and what the source says of them.

    Of several tries the one with the largest margin of a wrong class over the true one counts,
    invalid ones last; so an example is misled if any try misleads it.  ``ask_source=False`` saves
    the forward pass where there is one try and the source's answers are known already.

    Raises `AttackError` for candidates of another shape or dtype, or where there are none.
    """
    best: Judged | None = None
    best_rank: Tensor | None = None
    for candidates in proposed:
        _check_form(candidates, batch.inputs, what="candidate")
        checked = _check(candidates.detach(), batch, threat=threat, bounds=source.bounds)
        if not ask_source and best is None:
            best = checked
            continue
        if best is not None and best_rank is None:
            best, best_rank = _answered(source, best, batch.labels)
        answered, rank = _answered(source, checked, batch.labels)
        if best is None or best_rank is None:
            best, best_rank = answered, rank
        else:
            best, best_rank = _better(best, best_rank, answered, rank)
    if best is None:
        raise AttackError("the attack proposed no candidate")
    return best


@contextmanager
def guarding(source: Classifier, inputs: Tensor) -> Iterator[Watch]:
    """While inside, an attack runs: global generators and grad mode are put back afterwards.

    Raises `AttackError` where the attack changed its inputs, the model's tensors or its mode.
    """
    tensors = [*source.module.parameters(), *source.module.buffers()]
    before = [tensor._version for tensor in tensors]
    grad_mode = torch.is_grad_enabled()
    cuda = [inputs.device] if inputs.device.type == "cuda" else []
    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng(devices=cuda), source.watching(inputs) as watch:
        try:
            yield watch
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)  # noqa: NPY002
            torch.set_grad_enabled(grad_mode)
    if inputs._version != watch.version:
        raise AttackError("the attack changed its inputs in place")
    if any(module.training for module in source.module.modules()):
        source.module.eval()
        raise AttackError("the attack left the model in training mode")
    if any(tensor._version != version for tensor, version in zip(tensors, before, strict=True)):
        raise AttackError("the attack changed the model's parameters or buffers")
    if any(parameter.requires_grad for parameter in source.module.parameters()):
        source.module.requires_grad_(False)
        raise AttackError("the attack unfroze the model's parameters")


def tolerance(threat: ThreatModel, *, bounds: Bounds, coordinates: int) -> float:
    """Returns by how much a candidate may overstep epsilon, in the units of the input."""
    if threat.norm is Norm.LINF:
        return LINF_TOLERANCE * bounds.width
    return L2_TOLERANCE * bounds.width * math.sqrt(coordinates)


def _tries(
    attack: Attack,
    source: Classifier,
    batch: Batch,
    *,
    threat: ThreatModel,
    streams: ExampleStreams,
) -> Iterator[Tensor]:
    proposed: object = attack.propose(
        source, batch.inputs, labels=batch.labels, threat=threat, streams=streams
    )
    if isinstance(proposed, Tensor):  # an author's ``return`` in the place of ``yield``
        yield proposed
    elif isinstance(proposed, Iterable):
        yield from proposed
    else:
        raise AttackError(f"propose must yield tensors, got {type(proposed).__name__}")


def _check_form(candidates: object, inputs: Tensor, *, what: str) -> None:
    if not isinstance(candidates, Tensor):
        raise AttackError(f"a {what} must be a tensor, got {type(candidates).__name__}")
    if candidates.shape != inputs.shape or candidates.dtype != inputs.dtype:
        raise AttackError(
            f"a {what} must have shape {tuple(inputs.shape)} and dtype {inputs.dtype}, "
            f"got {tuple(candidates.shape)} and {candidates.dtype}"
        )


def _check(candidates: Tensor, batch: Batch, *, threat: ThreatModel, bounds: Bounds) -> Judged:
    # A NaN or infinite coordinate makes the distance NaN or infinite, so that one reduction
    # serves finiteness and budget; it is done example by example only where something is wrong.
    distance = distances(candidates, batch.inputs, norm=threat.norm)
    slack = tolerance(threat, bounds=bounds, coordinates=batch.inputs[0].numel())
    finite = torch.isfinite(distance)
    verdict = torch.zeros_like(batch.labels)
    verdict[~(distance <= threat.radius + slack)] = Verdict.OUT_OF_BUDGET
    if threat.bounds is not None:
        verdict[_outside(candidates, threat.bounds)] = Verdict.OUT_OF_BOUNDS
    verdict[~finite] = Verdict.NOT_FINITE
    if not bool(finite.all()):
        finite_like = finite.view(-1, *(1,) * (candidates.ndim - 1))
        candidates = torch.where(finite_like, candidates, batch.inputs)
    return Judged(candidates, None, verdict, distance, torch.zeros_like(finite))


def _outside(candidates: Tensor, bounds: Bounds) -> Tensor:
    slack = LINF_TOLERANCE * bounds.width
    flat = candidates.flatten(1)
    return (flat.amin(1) < bounds.low - slack) | (flat.amax(1) > bounds.high + slack)


def _answered(source: Classifier, judged: Judged, labels: Tensor) -> tuple[Judged, Tensor]:
    outputs = source.predict(judged.candidates)
    answers = answers_from(source, outputs)
    valid = judged.verdict == Verdict.VALID
    misled = valid & (answers.predicted != labels)
    rank = torch.where(valid, margin(outputs, labels), -torch.inf)
    return _replace(judged, answers, misled), rank


def _replace(judged: Judged, answers: Answers, any_misled: Tensor) -> Judged:
    return Judged(judged.candidates, answers, judged.verdict, judged.distance, any_misled)


def _better(
    one: Judged, one_rank: Tensor, other: Judged, other_rank: Tensor
) -> tuple[Judged, Tensor]:
    take = other_rank > one_rank
    if one.answers is None or other.answers is None:
        raise AttackError("candidates can't be ranked before the source is asked")
    take_inputs = take.view(-1, *(1,) * (one.candidates.ndim - 1))
    answers = Answers(
        torch.where(take, other.answers.predicted, one.answers.predicted),
        torch.where(take, other.answers.confidence, one.answers.confidence),
    )
    chosen = Judged(
        torch.where(take_inputs, other.candidates, one.candidates),
        answers,
        torch.where(take, other.verdict, one.verdict),
        torch.where(take, other.distance, one.distance),
        one.any_misled | other.any_misled,
    )
    return chosen, torch.maximum(one_rank, other_rank)
