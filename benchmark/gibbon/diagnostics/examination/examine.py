"""Examines a model: makes all checks within a budget of passes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from gibbon.core.rng import seeded_globals
from gibbon.datasets.base import Batch
from gibbon.diagnostics.examination import (
    answers_repeat,
    batch_composition,
    clean_errors,
    gradient_differences,
    gradient_modes,
    gradient_sums,
    inner_work,
    input_rounding,
    loss_jumps,
    other_preprocessing,
    output_form,
)
from gibbon.diagnostics.examination.observe import (
    GRADIENT_MODES,
    cause_of,
    comparison,
    in_other_modes,
    largest,
    off_the_data,
    plain_answers,
)
from gibbon.diagnostics.examination.observed import Observed, OtherAnswers
from gibbon.diagnostics.examination.subject import (
    SEED,
    CheckNotes,
    CheckReport,
    OutOfPassesError,
    Subject,
)
from gibbon.models.classifier import Classifier
from gibbon.models.model_state import ModelState
from gibbon.models.reached_values import restoring_values
from gibbon.records.examination import Examination

# 5 % of the passes of PGD with 20 steps on 1,000 examples, which are 20 forward, 20 backward and
# one for the candidates.
PGD_PASSES = 41 * 1000
FULL_BUDGET = PGD_PASSES // 20
RUN_SHARE = 10  # of the passes of a run, an examination makes at most one in this many
FEW = 2  # examples that show why answers differ
LATER = 8  # examples whose first answers are compared with their last

# Parts of what is left when a check begins.
SMALL = 20  # passes: with fewer the gradient comes first
PREPROCESSING_PART, ROUNDING_PART = 0.65, 0.16
GRADIENT_PART, JUMPS_PART, SUMS_PART = 0.6, 0.3, 0.5
SMALL_RUN = 400  # passes of an examination
KEPT = 16  # passes that a small run keeps for the candidates and the last answers


def budget_of_run(passes: int) -> int:
    """Returns the passes that the examination of a model may make in a run.

    Args:
        passes: passes of the run on this model, forward and backward, by example.

    >>> budget_of_run(60), budget_of_run(41_000)
    (6, 2050)
    """
    return max(0, min(FULL_BUDGET, passes // RUN_SHARE))


@dataclass(frozen=True)
class Candidates:
    """Candidates of an attack.

    Args:
        inputs: shape (M, *input_shape).
        ids: int64, shape (M,): the examples that they were made of.
        labels: int64, shape (M,).
    """

    inputs: Tensor
    ids: Tensor
    labels: Tensor


def examine(
    classifier: Classifier,
    batch: Batch,
    *,
    budget: int = FULL_BUDGET,
    observed: Observed | None = None,
    candidates: Candidates | None = None,
    exact: Classifier | None = None,
    device: torch.device | None = None,
) -> Examination:
    """Examines a model on a few examples, and returns the checks and the flags that they raise.

    Args:
        classifier: the model.
        batch: N examples; the more classes, the better.
        budget: passes that it may make, forward and backward, by example.  With a small budget
            fewer examples are used, and the last checks are left out.
        observed: answers of the model to these examples that are known, which cost no pass.
        candidates: candidates of an attack, at which the gradient is checked, too.
        exact: the model in float32, if ``classifier`` computes it with fewer digits, whose rounding
            hides differences; it counts its passes together with ``classifier``.
        device: where the model is evaluated; where it is if None.

    Nothing is raised: a check that raises an exception is recorded as failed.  The model comes back
    as it was: mode, parameters, buffers, plain attributes, hooks; so do random generators.

    >>> from torch import nn
    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    >>> classifier = Classifier(net, classes=3, input_shape=(1, 2, 2))
    >>> batch = Batch(torch.arange(9), torch.rand(9, 1, 2, 2), torch.arange(9) % 3)
    >>> found = examine(classifier, batch, budget=200)
    >>> [check.result for check in found.checks if check.name == "gradient at the data"]
    ['passed']
    >>> found.passes <= 200
    True
    """
    started, passes = time.monotonic(), classifier.passes
    before = (passes.forward, passes.backward)
    place = device if device is not None else batch.inputs.device
    reports: list[CheckReport] = []
    with undisturbed(classifier, place):
        known = observed if observed is not None else _observe(classifier, batch, place, budget)
        spent = passes.forward + passes.backward - sum(before)
        subject = Subject(classifier, known, place, budget - spent, exact)
        reports += _at_data(subject)
        if candidates is not None:
            reports.append(_candidates(subject, candidates))
    # Of several flags of a kind the first one is kept.
    found = [flag for each in reports for flag in each.found]
    return Examination(
        examples=len(known.outputs),
        checks=tuple(each.check for each in reports),
        found=tuple({flag.kind: flag for flag in reversed(found)}.values())[::-1],
        budget=budget,
        forward_passes=passes.forward - before[0],
        backward_passes=passes.backward - before[1],
        seconds=time.monotonic() - started,
        at_candidates=candidates is not None,
    )


def examine_candidates(
    classifier: Classifier,
    observed: Observed,
    candidates: Candidates,
    *,
    budget: int,
    device: torch.device,
    exact: Classifier | None = None,
    jumps: bool = False,
) -> Examination:
    """Checks answers and gradient after an attack; arguments and result as of `examine`.

    ``jumps`` is whether the loss was found to jump at the data.
    """
    started, passes = time.monotonic(), classifier.passes
    before = (passes.forward, passes.backward)
    with undisturbed(classifier, device):
        subject = Subject(classifier, observed, device, budget, exact)
        subject.jumps = jumps
        after = _made(
            answers_repeat.AFTER, lambda: answers_repeat.same_inputs_after_attacks(subject)
        )
        report = _candidates(subject, candidates)
    return Examination(
        checks=(after.check, report.check),
        found=(*after.found, *report.found),
        budget=budget,
        forward_passes=passes.forward - before[0],
        backward_passes=passes.backward - before[1],
        seconds=time.monotonic() - started,
        at_candidates=report.check.result != "left out",
    )


def _at_data(subject: Subject) -> Iterator[CheckReport]:
    """Yields the reports of the checks, the most valuable ones first."""
    observed = subject.observed
    later = subject.rows(min(LATER, max(1, subject.budget // 20)))
    yield _made("form of the outputs", lambda: output_form.output_form(subject))
    yield _made(clean_errors.CHANCE, lambda: clean_errors.clean_error(subject))
    order = _made(clean_errors.ORDER, lambda: clean_errors.class_order(subject))
    yield _made(answers_repeat.NAME, lambda: answers_repeat.same_inputs_twice(subject))
    yield _made("with and without gradients", lambda: gradient_modes.gradient_modes(subject))
    small = subject.left < SMALL
    if observed.alone is not None and observed.alone.difference > observed.tolerance:
        subject.mixes = True
    if small:
        yield _made(
            gradient_differences.AT_DATA,
            lambda: gradient_differences.gradient_at_data(subject.exactly, subject.left),
        )
    try:
        yield from inner_work.inner_work(subject)
    except Exception as error:  # noqa: BLE001  a check must not end the run
        yield CheckNotes(inner_work.LAYERS).fail(error)
        yield CheckNotes(inner_work.INNER).fail(error)
    yield _made(batch_composition.NAME, lambda: batch_composition.batch_composition(subject))
    # Of a model that makes many errors, the reason is worth more than its gradient.
    inputs = _made(
        other_preprocessing.NAME,
        lambda: other_preprocessing.other_preprocessing(
            subject, int(PREPROCESSING_PART * subject.left)
        ),
    )
    yield from _larger_gain_first(order, inputs)
    yield _made(
        input_rounding.NAME,
        lambda: input_rounding.input_rounding(subject.exactly, int(ROUNDING_PART * subject.left)),
    )
    if not small:
        jumps = _made(
            loss_jumps.NAME,
            lambda: loss_jumps.loss_jumps(subject.exactly, int(JUMPS_PART * subject.left)),
        )
        subject.jumps = loss_jumps.are_serious(jumps.found)
        yield jumps
        yield from _gradients(subject)
    first = observed.outputs[later]
    yield _made(
        answers_repeat.LATER, lambda: answers_repeat.same_inputs_later(subject, first, later)
    )


def _gradients(subject: Subject) -> Iterator[CheckReport]:
    """Yields the reports on the gradient at the data and elsewhere.

    In a small run the gradient at the data comes first, and passes for later checks are kept.
    """
    small = subject.budget < SMALL_RUN

    def elsewhere() -> CheckReport:
        part = subject.left - LATER - KEPT if small else int(SUMS_PART * subject.left)
        return _made(gradient_sums.NAME, lambda: gradient_sums.gradient_sums(subject.exactly, part))

    sums = None if small else elsewhere()
    here = _made(
        gradient_differences.AT_DATA,
        lambda: gradient_differences.gradient_at_data(
            subject.exactly, int(GRADIENT_PART * subject.left)
        ),
    )
    yield here
    yield _unless_wrong(elsewhere() if sums is None else sums, here)


def _unless_wrong(sums: CheckReport, here: CheckReport) -> CheckReport:
    """Returns the report on gradients elsewhere, without flags if the gradient itself is wrong."""
    if not (sums.found and any(each.severity in (None, "serious") for each in here.found)):
        return sums
    reason = "the gradient is wrong where it is taken, which has a flag of its own"
    changed = {"result": "abstained", "reason": reason}
    return CheckReport(sums.check.model_copy(update=changed))


def _larger_gain_first(order: CheckReport, inputs: CheckReport) -> tuple[CheckReport, CheckReport]:
    """Returns two reports on repairs, the one with fewer errors first: the first flag is kept.

    Inputs that are wrong may look like classes in another order.
    """
    repaired = inputs.check.figures.get("clean error with the best kind")
    reordered = order.check.figures.get("clean error in the other order")
    better = repaired is not None and (reordered is None or repaired < reordered)
    return (inputs, order) if inputs.found and better else (order, inputs)


def _candidates(subject: Subject, candidates: Candidates) -> CheckReport:
    return _made(
        gradient_differences.AT_CANDIDATES,
        lambda: gradient_differences.gradient_at_candidates(
            subject.exactly, candidates.inputs, candidates.ids, candidates.labels
        ),
    )


def _made(name: str, check: Callable[[], CheckReport]) -> CheckReport:
    """Returns the report of a check, or of the exception that it raised."""
    try:
        return check()
    except OutOfPassesError as error:
        return CheckNotes(name).leave_out(error.passes)
    except Exception as error:  # noqa: BLE001  a check must not end the run
        return CheckNotes(name).fail(error)


@contextmanager
def undisturbed(classifier: Classifier, device: torch.device) -> Iterator[None]:
    """Evaluates a model in full float32, and puts it and all global state back afterwards."""
    matmul, convolution = torch.backends.cuda.matmul, torch.backends.cudnn
    coarse = matmul.allow_tf32, convolution.allow_tf32
    # The models of a run are evaluated already.
    evaluated = classifier.snapshot is not None
    evaluating = nullcontext() if evaluated else classifier.evaluating(device)
    with restoring_values(classifier.reached), seeded_globals(SEED, device), evaluating:
        state = ModelState(classifier)
        matmul.allow_tf32 = convolution.allow_tf32 = False
        try:
            yield
        finally:
            matmul.allow_tf32, convolution.allow_tf32 = coarse
            state.restore()


def _observe(classifier: Classifier, batch: Batch, device: torch.device, budget: int) -> Observed:
    """Returns answers to a batch, or to as many of its examples as half of a budget allows."""
    count = max(1, min(len(batch.inputs), budget // 10))
    sample = Batch(batch.ids[:count], batch.inputs[:count], batch.labels[:count])
    given = sample.to(device)
    outputs = plain_answers(classifier, given.inputs)
    again = comparison(outputs, plain_answers(classifier, given.inputs))
    steady = again.difference <= Observed(sample, outputs).tolerance
    cause = None if steady else cause_of(classifier, given.inputs[:FEW])
    off = off_the_data(classifier, given, key="points of an examination")
    seen: dict[str, tuple[OtherAnswers, Tensor | None]] = {}
    coarse = False
    if steady:
        seen, coarse = in_other_modes(classifier, given, outputs=outputs, off=off)
    return Observed(
        sample.to(torch.device("cpu")),
        outputs,
        steady=steady,
        repeats=True,
        cause=cause,
        changed=again.changed,
        nearby=off.kept,
        alone=seen["alone"][0] if seen else None,
        with_gradients=largest([seen[name][0] for name in GRADIENT_MODES]) if seen else None,
        coarse=coarse,
    )
