r"""Checks the input gradient against finite differences of the objective that attacks follow.

At a point x the model's outputs z(x) have a cotangent c, the gradient of an objective with respect
to them: the exact ascent direction of the loss at the data, the margin's at candidates.  The input
gradient g is that of :math:`\langle c, z(x) \rangle`, so that along a displacement d

.. math:: \langle c, z(x + d/2) - z(x - d/2) \rangle \approx \langle g, d \rangle.

Both sides are compared along random signs, which show any part of the gradient that is missing or
wrong, and along the gradient's own sign, whose difference is the largest against rounding.  The
relative error of an example is the distance of the two sides, divided by the larger one's norm.

Networks of rectifiers have kinks: a step that is too large gives an error, and one that is too
small is lost in rounding.  So the smallest error over several steps counts, of those whose
difference exceeds rounding by far.  If there is none, the example is undecided.  Among honest
networks, trained and random, the largest error of an example was 0.12 in float32 at the first step.

The signs of a lost gradient are those of A. Athalye, N. Carlini and D. Wagner, "Obfuscated
gradients give a false sense of security", ICML 2018, section 3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gibbon.core.rng import ExampleStreams, derive_key
from gibbon.datasets.base import Batch
from gibbon.diagnostics.enough_examples import SURE_LEAST, severity_by_count
from gibbon.diagnostics.examination.adapting_keys import adaptation_to
from gibbon.diagnostics.examination.answers_repeat import changed_since
from gibbon.diagnostics.examination.closeness import EPSILON
from gibbon.diagnostics.examination.module_search import first_wrong_gradient
from gibbon.diagnostics.examination.observe import points_nearby
from gibbon.diagnostics.examination.subject import (
    DETECTS,
    CheckNotes,
    CheckReport,
    Subject,
    counted,
)
from gibbon.models.outputs import margin_ascent
from gibbon.records.examination import ExaminedFlag
from gibbon.records.flag_share import FlagShare

COARSE = "it computes with few digits, whose rounding hides small differences"
AT_DATA, AT_CANDIDATES = "gradient at the data", "gradient at candidates"

FIRST_STEP = 1e-4  # as a share of the bounds
OTHER_STEPS = (1e-3, 5e-3, 2e-5)  # if the first can't decide, or disagrees
ONLY_STEP = 1e-3  # if the budget allows one step: inputs may lie on a grid that is finer than this
TINY_STEP = 1e-6  # changes nothing but the rounding
# Candidates are moved by half of this, a share of the bounds: more than a step.  Networks that were
# trained to be robust have their kinks where pixels of 0 or 1 are after a whole epsilon.
OFF_CANDIDATES = 0.04
RANDOM = 2  # random directions
ROUNDINGS = 4  # of float32 in an output, for its size
NOISE_SHARE = 0.1  # largest part of a difference that may be rounding
WRONG = 0.3  # relative error of an example's gradient
ALL_WRONG = 0.12  # median of the relative errors
LEAST_SHARE = 0.1  # of the examples with a wrong gradient
WRONG_BESIDES_JUMPS = 0.9  # the same if the loss jumps, which disturbs differences at some points
ZERO_SHARE = 0.01  # of the examples with a zero gradient
OPPOSITE = 1.8  # relative error of a gradient that points the other way
MOST = 48  # examples
MOST_CANDIDATES = 8
AGAIN = 12  # examples that are measured at other steps
KEPT = 10  # passes that other steps leave for the check of later answers and for naming a part
FEW = 3  # examples, whose median says nothing
# Relative error at the larger step that the first step has to confirm.  A network of hard-swish
# units after a short training had 0.82 there, with a gradient that is right to nine digits.
SURE = 0.6
CONFIRMED = 2  # examples whose errors it confirms, for which passes are kept
SETTLES = 0.5  # part of the error at the first step that another step must come below
COARSE_STEP = 0.02  # of a model that computes with few digits
COARSE_FALL = 0.2  # part of the predicted rise by which the objective falls
COARSE_SHARE = 0.8  # of the examples


@dataclass(frozen=True, eq=False)
class Points:
    """Points with gradients, on the CPU.

    Args:
        inputs: shape (M, *input_shape).
        cotangents: shape (M, K).
        gradients: shape (M, *input_shape).
        outputs: shape (M, K).
        ids: int64, shape (M,): the examples, which random directions belong to.
        labels: int64, shape (M,).
    """

    inputs: Tensor
    cotangents: Tensor
    gradients: Tensor
    outputs: Tensor
    ids: Tensor
    labels: Tensor

    def take(self, rows: Sequence[int]) -> Points:
        """Returns some of the points."""
        index = list(rows)
        return Points(
            self.inputs[index],
            self.cotangents[index],
            self.gradients[index],
            self.outputs[index],
            self.ids[index],
            self.labels[index],
        )

    @property
    def zero(self) -> Tensor:
        """Whether the gradient is zero in every coordinate, bool, shape (M,)."""
        return (self.gradients == 0).flatten(1).all(1)


def gradient_at_data(subject: Subject, allowance: int) -> CheckReport:
    """Checks the gradient a little off the examples of the sample.

    Raises ``gradient-mismatch`` and ``zero-gradient``.  ``allowance`` is the number of passes that
    the first step may make.
    """
    notes = CheckNotes(AT_DATA)
    nearby = subject.observed.nearby
    if not subject.differentiable or nearby is None or nearby.gradient is None:
        return notes.abstain(subject.classifier.forward_only or "the model has no gradient")
    total = len(nearby.zero)
    notes.looked_at = f"whether the gradient is zero at {counted(total, 'point')} off the data"
    zero = int(nearby.zero.sum())
    notes.figures["zero gradients"] = zero
    if zero and zero / total >= ZERO_SHARE:
        _flag_zero(subject, notes, zero, total, where=" a little off the data")
    again = not subject.observed.steady or subject.observed.coarse
    if subject.excuse:
        return notes.abstain(subject.excuse)
    if subject.detects_gradients:
        return notes.abstain(DETECTS)
    if subject.coarse:
        return _coarsely(subject, notes, allowance)
    count = min(MOST, len(nearby.inputs), allowance // _cost(again=again))
    # Rather fewer examples than a single step.
    affordable = (subject.left - _other_steps(RANDOM) - KEPT) // _cost(again=again)
    count = min(count, affordable) if affordable >= FEW else count
    directions = RANDOM
    if count < 1 and allowance >= 2 and not again:  # the gradient's own sign alone
        count, directions = min(MOST, len(nearby.inputs), allowance // 2), 0
    if count < 1:
        if notes.found:
            return notes.report()
        return notes.leave_out(_cost(again=again))
    rows = subject.rows(count, of=len(nearby.inputs))
    sample = subject.observed.sample
    ids, labels = sample.ids[rows].cpu(), sample.labels[rows].cpu()
    inputs = nearby.inputs[rows]
    if again:
        points = _points(subject, inputs, ids, labels, margin=False)
    else:
        outputs = nearby.outputs[rows].float()
        cotangents = subject.classifier.outputs.ascent(outputs, labels)
        points = Points(inputs, cotangents, nearby.gradient[rows], outputs, ids, labels)
    return _checked(subject, points, notes, directions=directions)


def gradient_at_candidates(
    subject: Subject, candidates: Tensor, ids: Tensor, labels: Tensor
) -> CheckReport:
    """Checks the margin's gradient a little off candidates of an attack.

    Raises ``gradient-mismatch`` and ``zero-gradient``.
    """
    notes = CheckNotes(AT_CANDIDATES)
    if not subject.differentiable:
        return notes.abstain(subject.classifier.forward_only or "the model has no gradient")
    if subject.excuse:
        return notes.abstain(subject.excuse)
    if subject.detects_gradients:
        return notes.abstain(DETECTS)
    if subject.coarse:
        return notes.abstain(COARSE)
    count = min(MOST_CANDIDATES, len(candidates), subject.left // _cost(again=True))
    if count < 1:
        return notes.leave_out(_cost(again=True))
    given = Batch(ids[:count].cpu(), candidates[:count].cpu(), labels[:count].cpu())
    off = points_nearby(subject.classifier, given, key="off candidates", distance=OFF_CANDIDATES)
    points = _points(subject, off, given.ids, given.labels, margin=True)
    zero = int(points.zero.sum())
    notes.figures["zero gradients"] = zero
    if zero:
        _flag_zero(subject, notes, zero, count, where=" at candidates")
    return _checked(subject, points, notes, directions=RANDOM)


def _coarsely(subject: Subject, notes: CheckNotes, allowance: int) -> CheckReport:
    """Checks no more than whether the objective falls along the gradient's sign."""
    nearby, sample = subject.observed.nearby, subject.observed.sample
    count = min(MOST_CANDIDATES, allowance // 4)
    if count < FEW or nearby is None:
        return notes.abstain(COARSE)
    rows = subject.rows(count, of=len(nearby.inputs))
    ids, labels = sample.ids[rows].cpu(), sample.labels[rows].cpu()
    points = _points(subject, nearby.inputs[rows], ids, labels, margin=False)
    measured, predicted = _along(subject, points, COARSE_STEP, points.gradients.sign())
    falls = measured < -COARSE_FALL * predicted.abs()
    notes.figures["falling along the sign"] = int(falls.sum())
    notes.looked_at += f"; {len(rows)} examples along the gradient's sign"
    if float(falls.double().mean()) >= COARSE_SHARE:
        _flag_mismatch(subject, notes, torch.where(falls, 2.0, 0.0).double())
        return notes.report()
    return notes.abstain(COARSE)


def _along(subject: Subject, points: Points, step: float, signs: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the measured and the predicted change of the objective over a step, shape (M,)."""
    bounds, length = subject.classifier.bounds, step * subject.width
    above = (points.inputs + length * signs).clamp(bounds.low, bounds.high)
    below = (points.inputs - length * signs).clamp(bounds.low, bounds.high)
    # The displacement as float32 holds it.
    moved = (above.double() - below.double()).flatten(1)
    predicted = (moved * points.gradients.double().flatten(1)).sum(1)
    change = (subject.ask(above) - subject.ask(below)) * points.cotangents.double()
    return change.sum(1), predicted


def _cost(*, again: bool) -> int:
    """Returns the passes that an example takes at the first step."""
    return 2 * (RANDOM + 1) + 2 * again


def _other_steps(directions: int) -> int:
    """Returns the passes that an example takes at other steps, with a look at its rounding."""
    return 2 * (directions + 1) * len(OTHER_STEPS) + 2


def _points(
    subject: Subject, inputs: Tensor, ids: Tensor, labels: Tensor, *, margin: bool
) -> Points:
    ascent = margin_ascent if margin else subject.classifier.outputs.ascent
    outputs, cotangents, gradients = subject.ascend(inputs, labels, ascent)
    return Points(inputs, cotangents, gradients, outputs, ids, labels)


def _checked(
    subject: Subject, points: Points, notes: CheckNotes, *, directions: int
) -> CheckReport:
    finite = points.gradients.flatten(1).isfinite().all(1) & points.outputs.isfinite().all(1)
    if not bool(finite.all()):
        points = points.take(finite.nonzero().flatten().tolist())
        notes.figures["not finite"] = int((~finite).sum())
    count = len(points.inputs)
    words = f"{directions} random directions and the gradient's sign" if directions else "its sign"
    place = "candidates" if notes.name == AT_CANDIDATES else "examples"
    looked_at = f"the gradient of {count} {place} against finite differences along {words}"
    notes.looked_at = "; ".join(filter(None, (notes.looked_at, looked_at)))
    if not count:
        return notes.abstain("the gradient is not finite")
    cost = 2 * (directions + 1)
    if subject.left < cost * count:  # the place of a zero gradient was searched
        points = points.take(range(subject.left // cost))
        if not len(points.inputs):
            return notes.report() if notes.found else notes.leave_out(cost)
    errors = _measured(subject, points, directions=directions)
    decided = ~errors.isnan() & ~points.zero
    known = errors[decided]
    notes.figures["decided"] = int(decided.sum())
    if not len(known):
        return notes.abstain("no loss changes beyond rounding")
    wrong = int((known > WRONG).sum())
    median = float(known.median())
    notes.figures["median relative error"] = median
    notes.figures["largest relative error"] = float(known.max())
    notes.figures["wrong"] = wrong
    candidates = notes.name == AT_CANDIDATES  # where classes meet jumps are denser
    if subject.jumps and (
        candidates or len(known) < FEW or wrong < WRONG_BESIDES_JUMPS * len(known)
    ):
        return notes.abstain("the loss jumps, so that differences disagree with a right gradient")
    if _is_wrong(known, wrong, median):
        changed = changed_since(subject, points.inputs, points.outputs)
        if changed is not None:  # then differences say nothing
            notes.found.append(changed)
        else:
            _flag_mismatch(subject, notes, known)
    return notes.report()


def _is_wrong(known: Tensor, wrong: int, median: float) -> bool:
    if len(known) > FEW and median > ALL_WRONG:
        return True
    # One example alone may lie among kinks: gradients of deep random networks are shattered.
    enough = wrong >= SURE_LEAST or (len(known) == 1 and float(known.max()) > OPPOSITE)
    return wrong > 0 and enough and wrong / len(known) >= LEAST_SHARE


def _measured(subject: Subject, points: Points, *, directions: int) -> Tensor:
    """Returns the smallest relative error of each point, NaN if undecided, shape (M,).

    Points that the first step does not settle are measured at other steps, as many of them as the
    budget allows.  They stand for the others: if other steps settle half of them, the others are
    undecided; else the errors of the first step count.  If the budget does not allow all steps, a
    larger one comes first, and the first step confirms its errors.
    """
    cost = 2 * (directions + 1)  # of one point and step
    again_cost = _other_steps(directions)
    repeats = subject.observed.steady  # another number of points draws other random numbers
    if not repeats or subject.left < cost * len(points.inputs) + again_cost + KEPT:
        return _at_larger_step(subject, points, directions=directions)
    errors = _at_step(subject, points, FIRST_STEP, directions=directions)
    unsettled = (~(errors <= ALL_WRONG) & ~points.zero).nonzero().flatten().tolist()
    rows = unsettled[: min(AGAIN, max(0, subject.left - KEPT) // again_cost)]
    if not rows:
        return errors
    some = points.take(rows)
    noise = _rounding(subject, some)
    # The first step's error may be rounding that the size of the outputs does not show.
    errors[rows] = torch.where(noise > _floor(some), torch.nan, errors[rows])
    measured, first, settled = rows, errors.clone(), 0
    for step in OTHER_STEPS:
        rows = rows[: max(0, subject.left - KEPT) // cost]
        if not rows:
            break
        noise = noise[: len(rows)]
        found = _at_step(subject, points.take(rows), step, directions=directions, noise=noise)
        if step > FIRST_STEP:  # there a kink or a curve may be the reason of an error
            excused = first[rows].isnan() & (found > WRONG) & (found < OPPOSITE)
            found = torch.where(excused, torch.nan, found)
        errors[rows] = torch.fmin(errors[rows], found)
        open_ = [
            place
            for place, row in enumerate(rows)
            if not errors[row] <= min(ALL_WRONG, float(first[row].nan_to_num(1.0)) * SETTLES)
        ]
        settled += len(rows) - len(open_)
        rows, noise = [rows[place] for place in open_], noise[open_]
    if 2 * settled >= len(measured):
        errors[sorted(set(unsettled) - set(measured))] = torch.nan
    return errors


def _at_larger_step(subject: Subject, points: Points, *, directions: int) -> Tensor:
    """Returns relative errors at the larger step, NaN if undecided, shape (M,).

    There a curve or a kink may be the reason of an error, so that it counts only if it is that of
    the opposite direction, or if the first step confirms it; it is enough that it confirms those
    that the budget allows.  Examples that leave no passes for this are undecided.
    """
    cost, total = 2 * (directions + 1), len(points.inputs)
    kept = min(total, max(1, subject.left // cost - CONFIRMED))
    errors = torch.full((total,), torch.nan, dtype=torch.float64)
    errors[:kept] = _at_step(subject, points.take(range(kept)), ONLY_STEP, directions=directions)
    errors = torch.where((errors > ALL_WRONG) & (errors < SURE), torch.nan, errors)
    large = (errors >= SURE).nonzero().flatten().tolist()
    rows = large[: subject.left // cost]
    if not rows:
        return torch.where((errors >= SURE) & (errors < OPPOSITE), torch.nan, errors)
    confirmed = _at_step(subject, points.take(rows), FIRST_STEP, directions=directions)
    # What the first step can't decide for its rounding does not count, but for a wrong sign.
    confirmed = torch.where(confirmed.isnan() & (errors[rows] >= OPPOSITE), errors[rows], confirmed)
    errors[rows] = torch.fmin(errors[rows], confirmed)
    errors[rows] = torch.where(confirmed.isnan(), torch.nan, errors[rows])
    others = large[len(rows) :]
    if not bool((confirmed > WRONG).all()):
        errors[others] = torch.nan
    return errors


def _floor(points: Points) -> Tensor:
    """Returns the rounding of the objective that the size of the outputs gives, shape (M,)."""
    size = points.outputs.double().abs().amax(1)
    norms: Tensor = points.cotangents.double().norm(dim=1)
    return ROUNDINGS * EPSILON * size * norms


def _rounding(subject: Subject, points: Points) -> Tensor:
    """Returns the rounding of the objective, from its change over a tiny step, shape (M,)."""
    streams = ExampleStreams.derive(derive_key("gibbon", "tiny steps"), points.ids)
    step = TINY_STEP * subject.width * streams.signs(points.inputs.shape[1:])
    change = subject.ask(points.inputs + step) - subject.ask(points.inputs)
    found = (change * points.cotangents.double()).sum(1).abs()
    return torch.maximum(torch.maximum(found, found.median()), _floor(points))


def _at_step(
    subject: Subject,
    points: Points,
    step: float,
    *,
    directions: int,
    noise: Tensor | None = None,
) -> Tensor:
    """Returns the relative errors of points at one step, a share of the bounds, shape (M,)."""
    streams = ExampleStreams.derive(derive_key("gibbon", "differences"), points.ids)
    rounding = _floor(points) if noise is None else noise
    shape = points.inputs.shape[1:]
    signs = [streams.child(label).signs(shape) for label in range(directions)]
    sides = [
        torch.stack(_along(subject, points, step, each))
        for each in (*signs, points.gradients.sign())
    ]
    own = _error(sides[-1:], rounding)
    if not directions:
        return own
    error = _error(sides[:-1], rounding)
    # Along its own sign a gradient that lacks a part may agree: there only an error decides.
    both = torch.maximum(error, torch.where(own.isnan(), error, own))
    return torch.where(error.isnan(), torch.where(own > WRONG, own, torch.nan), both)


def _error(sides: list[Tensor], rounding: Tensor) -> Tensor:
    """Returns the relative error over directions, shape (M,), NaN if it may be rounding."""
    measured, predicted = torch.stack(sides).unbind(1)
    largest = torch.maximum(measured.norm(dim=0), predicted.norm(dim=0))
    noise = math.sqrt(2 * len(sides)) * rounding
    error = (measured - predicted).norm(dim=0) / largest
    return torch.where(noise <= NOISE_SHARE * largest, error, torch.nan)


def _flag_zero(subject: Subject, notes: CheckNotes, zero: int, total: int, where: str = "") -> None:
    if any(each.kind == "zero-gradient" for each in notes.found):
        return
    path = first_wrong_gradient(subject) if zero == total else ""
    adapted = adaptation_to(subject, path)
    place = f" (the gradient is lost in {path})" if path else ""
    severity, few = severity_by_count(zero, total)
    notes.found.append(
        ExaminedFlag(
            kind="zero-gradient",
            severity=severity,
            share=FlagShare(count=zero, of=total),
            sentence="the input gradient is zero in every coordinate for "
            f"{zero} of {counted(total, 'example')}{where}{place}{few}",
            advice=adapted.advice,
            suite=adapted.suite,
        )
    )


def _flag_mismatch(subject: Subject, notes: CheckNotes, known: Tensor) -> None:
    wrong = known[known > ALL_WRONG]
    error = float(wrong.median())
    path = first_wrong_gradient(subject)
    adapted = adaptation_to(subject, path)
    other_way = "; it points the other way" if error > OPPOSITE else ""
    place = f" (the first part with a wrong backward pass is {path})" if path else ""
    at = " at candidates" if notes.name == AT_CANDIDATES else ""
    severity, few = severity_by_count(len(wrong), len(known), least=SURE_LEAST)
    notes.found.append(
        ExaminedFlag(
            kind="gradient-mismatch",
            severity=severity,
            figure=f"relative error {error:.2f}",
            sentence="the input gradient disagrees with finite differences of the loss for "
            f"{len(wrong)} of {counted(len(known), 'example')}{at}: relative error {error:.2f}"
            f"{other_way}{place}{few}",
            advice=adapted.advice,
            suite=adapted.suite,
        )
    )
