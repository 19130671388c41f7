r"""Checks whether gradients say anything of the loss away from the point where they are taken.

A gradient that agrees with finite differences may still lead nowhere.  Two signs of that:

- **Between examples it is far too small.**  Between inputs a and b of different answers the outputs
  change by far, and gradients on the line between them have to make up that change:

  .. math:: |\langle c, z(b) - z(a) \rangle| \le \int_0^1 |\langle g(a + t (b - a)), b - a \rangle|
      \, dt,

  with g the gradient of :math:`\langle c, z \rangle` and c the new answer's output less the old
  one's.  The integral is estimated from a few random points.  Stored answers that are looked up, a
  hard label, a noise in place of the gradient, and outputs that are flat but for narrow slopes or
  jumps leave next to nothing of it.
- **Close by it is another one.**  Gradients at points a thousandth of the bounds apart, less than a
  quarter of a step of an 8-bit picture, have nothing in common: the loss oscillates faster than any
  step of an attack.

Few lines of few points come first, which are enough for an honest model; only if they are
suspicious, other lines with more points decide.  Over 40 honest networks, trained and with random
weights, three quarters of the lines had an integral of 0.8 or more of the change with three points
on each, and the median cosine of neighbouring gradients was 0.59 or more.  Of more points the
largest slope is left out, which may be that of a narrow one.

Source: M. Sundararajan, A. Taly and Q. Yan, "Axiomatic attribution for deep networks", ICML 2017,
https://arxiv.org/abs/1703.01365, section 3 (completeness), and A. Athalye, N. Carlini and D.
Wagner, "Obfuscated gradients give a false sense of security", ICML 2018, section 3 (the signs).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gibbon.core.rng import ExampleStreams, derive_key
from gibbon.diagnostics.enough_examples import LEAST_SERIOUS
from gibbon.diagnostics.examination.closeness import EPSILON
from gibbon.diagnostics.examination.observed import Nearby
from gibbon.diagnostics.examination.subject import (
    DETECTS,
    CheckNotes,
    CheckReport,
    Subject,
    counted,
)
from gibbon.models.outputs import PROBABILITIES, look_like_probabilities
from gibbon.records.examination import ExaminedFlag

NAME, KIND = "gradient away from the point", "uninformative-gradient"
SCREENED, SCREENED_POINTS = 4, 2  # lines, and points on each
MOST, MOST_POINTS, LEAST_POINTS = 8, 8, 4  # of the lines that decide
# Passes of the lines that come first, and of the fewest that decide.
DECIDES = 2 * (SCREENED * SCREENED_POINTS + LEAST_SERIOUS * LEAST_POINTS)
ROUNDINGS = 64  # of float32 in an output, that a change exceeds
TOO_SMALL, SUSPICIOUS = 0.3, 0.5  # part of the change that the gradients make up
SUSPICIOUS_LINES = 2  # of those that come first
SHARE = 0.75  # of the lines, or of the points
SMALLEST = 1e-30  # probability whose logarithm is used
APART = 1e-3  # of the bounds: neighbouring points
INCOHERENT = 0.2  # cosine of neighbouring gradients
NEIGHBOURS, MOST_NEIGHBOURS = 4, 12  # points that come first, and that decide


@dataclass(frozen=True, eq=False)
class ExampleLines:
    """Lines between pairs of examples, on the CPU.

    Args:
        first, second: positions in the sample of both ends of each.
        old, new: int64, shape (M,): the classes that the model answers there.
    """

    first: list[int]
    second: list[int]
    old: Tensor
    new: Tensor

    def __len__(self) -> int:
        return len(self.first)

    def part(self, start: int, stop: int) -> ExampleLines:
        """Returns some of the lines."""
        rows = slice(start, stop)
        return ExampleLines(self.first[rows], self.second[rows], self.old[rows], self.new[rows])


def gradient_sums(subject: Subject, allowance: int) -> CheckReport:
    """Looks at gradients between examples and close by; raises ``uninformative-gradient``.

    ``allowance`` is the number of passes that it may make.
    """
    notes, observed = CheckNotes(NAME), subject.observed
    if not subject.differentiable:
        return notes.abstain(subject.classifier.forward_only or "the model has no gradient")
    if not observed.steady or subject.excuse:
        return notes.abstain(subject.excuse or "it answers at random")
    if subject.detects_gradients:
        return notes.abstain(DETECTS)
    if observed.nearby is not None and bool(observed.nearby.zero.all()):
        return notes.abstain("the gradient is zero at all points off the data")
    if min(allowance, subject.left) < DECIDES:  # a suspicion alone would be passes for nothing
        return notes.leave_out(DECIDES)
    end = subject.left - min(allowance, subject.left)
    _between(subject, notes, end)
    if not notes.found:
        _close_by(subject, notes, end)
    if not notes.looked_at:
        return notes.abstain("too few examples of different answers, or with a gradient")
    return notes.report()


def _between(subject: Subject, notes: CheckNotes, end: int) -> None:
    """Compares gradients between examples with the change; ``end``: passes to be left over."""
    lines = _lines(subject)
    if len(lines) < SCREENED + LEAST_SERIOUS:
        return
    if subject.left - end < 2 * SCREENED * SCREENED_POINTS:
        return
    shares = _shares(subject, lines.part(0, SCREENED), SCREENED_POINTS)
    notes.looked_at = f"{SCREENED} lines between examples, {SCREENED_POINTS} points on each"
    notes.figures["part of the change"] = _median(shares)
    if int((shares <= SUSPICIOUS).sum()) < SUSPICIOUS_LINES:
        return
    left = (subject.left - end) // 2
    count = min(MOST, len(lines) - SCREENED, left // LEAST_POINTS)
    if count < LEAST_SERIOUS:
        notes.looked_at += "; too few passes are left to confirm what they show"
        return
    points = min(MOST_POINTS, left // count)
    shares = _shares(subject, lines.part(SCREENED, SCREENED + count), points)
    notes.looked_at += f", {count} others with {points} points"
    notes.figures["part of the change"] = _median(shares)
    small = shares <= TOO_SMALL
    if _nearly_all(small):
        known, wrong = int((~shares.isnan()).sum()), int(small.sum())
        notes.found.append(
            ExaminedFlag(
                kind=KIND,
                figure=f"{wrong} of {known} lines",
                sentence=f"on {wrong} of {counted(known, 'line')} between two examples the "
                "gradients make up next to nothing of the change of the outputs "
                f"({_median(shares):.1%} in the median): they do not show where the loss rises",
            )
        )


def _close_by(subject: Subject, notes: CheckNotes, end: int) -> None:
    """Compares gradients at neighbouring points; ``end``: passes to be left over."""
    nearby, known = subject.observed.nearby, subject.observed.coarse
    if nearby is None or nearby.gradient is None or known or subject.coarse:
        return
    alive = (~nearby.zero[: len(nearby.inputs)]).nonzero().flatten().tolist()
    rows = [row for row in subject.rows(len(nearby.inputs), of=len(nearby.inputs)) if row in alive]
    if len(rows) < LEAST_SERIOUS or subject.left - end < 2 * NEIGHBOURS:
        return
    cosines = _cosines(subject, nearby, rows[:NEIGHBOURS])
    if _nearly_all(cosines <= INCOHERENT):
        count = min(MOST_NEIGHBOURS, (subject.left - end) // 2)
        others = rows[NEIGHBOURS : NEIGHBOURS + count]
        if others:
            cosines = torch.cat([cosines, _cosines(subject, nearby, others)])
    looked_at = f"gradients at {counted(len(cosines), 'pair')} of neighbouring points"
    notes.looked_at = "; ".join(filter(None, (notes.looked_at, looked_at)))
    notes.figures["cosine of neighbouring gradients"] = _median(cosines)
    apart = cosines <= INCOHERENT
    if _nearly_all(apart):
        notes.found.append(
            ExaminedFlag(
                kind=KIND,
                figure=f"{int(apart.sum())} of {len(cosines)} points",
                sentence=f"a thousandth of the inputs' range away, the gradient is another one at "
                f"{int(apart.sum())} of {counted(len(cosines), 'point')} (cosine "
                f"{_median(cosines):.2f} in the median): it does not show where the loss rises",
            )
        )


def _cosines(subject: Subject, nearby: Nearby, rows: list[int]) -> Tensor:
    """Returns the cosine of the gradient at points off the data with that close by, shape (M,)."""
    sample = subject.observed.sample
    ids, labels = sample.ids[rows].cpu(), sample.labels[rows].cpu()
    streams = ExampleStreams.derive(derive_key("gibbon", "neighbouring points"), ids)
    points, bounds = nearby.inputs[rows], subject.classifier.bounds
    moved = points + APART * subject.width * streams.signs(points.shape[1:])
    cotangents = subject.classifier.outputs.ascent(nearby.outputs[rows].float(), labels)
    places = torch.arange(len(rows))
    _, _, found = subject.ascend(
        moved.clamp(bounds.low, bounds.high),
        places,
        lambda outputs, part: cotangents[part.cpu()].to(outputs),
    )
    known = torch.zeros_like(found) if nearby.gradient is None else nearby.gradient[rows]
    one, other = _unit(known), _unit(found)
    cosines: Tensor = (one * other).sum(1)
    return cosines


def _unit(gradients: Tensor) -> Tensor:
    flat = gradients.double().flatten(1)
    flat = flat / flat.abs().amax(1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)
    unit: Tensor = flat / flat.norm(dim=1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)
    return unit


def _lines(subject: Subject) -> ExampleLines:
    """Returns lines between examples of different answers, no example on two of them."""
    predicted = subject.observed.outputs.argmax(1).tolist()
    free = subject.rows(len(predicted))
    first: list[int] = []
    second: list[int] = []
    while free and len(first) < SCREENED + MOST:
        one = free.pop(0)
        other = next((each for each in free if predicted[each] != predicted[one]), None)
        if other is None:
            continue
        free.remove(other)
        first.append(one)
        second.append(other)
    old, new = (torch.tensor([predicted[row] for row in rows]) for rows in (first, second))
    return ExampleLines(first, second, old.long(), new.long())


def _shares(subject: Subject, lines: ExampleLines, points: int) -> Tensor:
    """Returns the part of the change that gradients make up, NaN if undecided, shape (M,)."""
    observed, count = subject.observed, len(lines)
    outputs, given = observed.outputs.double(), observed.sample.inputs.cpu()
    start, stop = given[lines.first], given[lines.second]
    logarithms = _are_probabilities(subject)
    ids = observed.sample.ids[lines.first].cpu()
    keys = ExampleStreams.derive(derive_key("gibbon", "lines"), ids)
    places = (torch.arange(points) + keys.uniform((points,))) / points  # one in each equal part
    axes = (count, points, *(1,) * (given.ndim - 1))
    inputs = start[:, None] + places.view(axes) * (stop - start)[:, None]
    classes = outputs.shape[1]
    # `ascend` passes one number an input: both classes are in it.
    pairs = (lines.old * classes + lines.new).repeat_interleave(points)

    def cotangent(found: Tensor, pair: Tensor) -> Tensor:
        old, new = (pair // classes)[:, None], (pair % classes)[:, None]
        signs = torch.zeros_like(found).scatter_(1, old, -1.0).scatter_(1, new, 1.0)
        return signs / found.clamp(min=SMALLEST) if logarithms else signs

    _, _, gradients = subject.ascend(inputs.flatten(0, 1), pairs, cotangent)
    moved = (stop - start).double().flatten(1)[:, None]
    slopes = (gradients.double().flatten(1).view(count, points, -1) * moved).sum(2)
    sizes = slopes.abs().sort(dim=1).values
    if points >= LEAST_POINTS:  # one point may lie on a narrow slope
        sizes = sizes[:, :-1]
    total = sizes.mean(1)
    values = outputs.clamp(min=SMALLEST).log() if logarithms else outputs
    ends = [values[rows] for rows in (lines.first, lines.second)]
    change = (_difference(ends[1], lines) - _difference(ends[0], lines)).abs()
    noise = ROUNDINGS * EPSILON * torch.maximum(*(each.abs().amax(1) for each in ends))
    undecided = (change <= noise) | ~total.isfinite()
    if logarithms:
        rows = [outputs[each].amin(1) for each in (lines.first, lines.second)]
        undecided |= torch.minimum(*rows) <= SMALLEST
    return torch.where(undecided, torch.nan, total / change)


def _difference(values: Tensor, lines: ExampleLines) -> Tensor:
    """Returns the new answer's value less the old one's, shape (M,)."""
    return (values.gather(1, lines.new[:, None]) - values.gather(1, lines.old[:, None]))[:, 0]


def _are_probabilities(subject: Subject) -> bool:
    """Returns whether outputs are probabilities, declared or not: their logarithms change."""
    declared = subject.classifier.outputs is PROBABILITIES
    return declared or look_like_probabilities(subject.observed.outputs)


def _nearly_all(signs: Tensor) -> bool:
    """Returns whether enough of what was looked at shows a sign; NaN shows none."""
    return int(signs.sum()) >= max(LEAST_SERIOUS, SHARE * len(signs))


def _median(values: Tensor) -> float | None:
    known = values[~values.isnan()]
    return float(known.median()) if len(known) else None
