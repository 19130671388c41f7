r"""Checks whether the objective that attacks follow jumps between neighbouring inputs.

A gradient says nothing about a function that jumps: activations that keep the k largest units,
activations in a few levels, hard attention and hard choices of a branch give gradients that are
right at almost every point and lead nowhere.

The change of the objective over a short segment in a random direction is compared with the
gradient's prediction.  Segments on which they disagree are halved, again and again, towards the
half that disagrees more.  Where a function is continuous, however many kinks it has, its change
becomes as small as the segment.  At a jump it stays as it is, and the pieces of the same length on
both sides of it change by much less; rounding would change them alike.

Source: C. Xiao, P. Zhong and C. Zheng, "Enhancing adversarial defense by k-winners-take-all", ICLR
2020, https://arxiv.org/abs/1905.10510, section 3 (the jumps), and F. Tramèr et al., "On adaptive
attacks to adversarial example defenses", NeurIPS 2020, section 5 (the attack).
"""

from __future__ import annotations

from collections.abc import Iterable
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
from gibbon.records.examination import ExaminedFlag
from gibbon.records.flag_share import FlagShare

NAME, KIND = "jumps of the loss", "discontinuous-loss"
REACH = 1e-2  # half of a segment, as a share of the bounds: about a step of an attack
HALVINGS = 10  # after which the segment is 2e-5 of the bounds long, many roundings of an input
COMPARED = 4  # halvings, over which a jump keeps half of its size, and a slope a sixteenth
KEPT = 0.5
ISOLATED = 0.25  # part of a jump by which the neighbouring pieces change at most
ROUNDINGS = 64  # of float32 in an output, that a jump exceeds
UNEXPLAINED = 0.3  # relative error of the prediction, from which on a segment is halved
RELEVANT = 0.1  # of the change that is usual over such a segment: smaller jumps do not matter
LEAST_SHARE = 0.05  # of the examples
SERIOUS_SHARE = 0.25  # of the examples; fewer are a warning
MOST, MOST_HALVED = 16, 8  # examples
SCREENING, HALVING = 2, HALVINGS + 2  # passes of an example


@dataclass(frozen=True, eq=False)
class Segments:
    """Segments through M points, each in its own direction, on the CPU.

    Args:
        subject: the model.
        points: shape (M, *input_shape): the middles.
        offsets: shape (M, *input_shape): half of each segment.
        cotangents: float64, shape (M, K).
        slopes: float64, shape (M,): the change over half a segment that the gradient predicts.
        usual: float64, shape (M,): the size of that change in a random direction.
    """

    subject: Subject
    points: Tensor
    offsets: Tensor
    cotangents: Tensor
    slopes: Tensor
    usual: Tensor

    def at(self, places: Tensor) -> Tensor:
        """Returns the objective less its prediction, at places in [-1, 1], float64, shape (M,)."""
        axes = (-1, *(1,) * (self.points.ndim - 1))
        inputs = self.points + places.view(axes).to(self.points.dtype) * self.offsets
        values = (self.subject.ask(inputs) * self.cotangents).sum(1)
        return values - places * self.slopes

    def take(self, rows: Tensor) -> Segments:
        """Returns some of the segments."""
        return Segments(
            self.subject,
            self.points[rows],
            self.offsets[rows],
            self.cotangents[rows],
            self.slopes[rows],
            self.usual[rows],
        )


def loss_jumps(subject: Subject, allowance: int) -> CheckReport:
    """Looks for jumps of the objective a little off the data; raises ``discontinuous-loss``.

    ``allowance`` is the number of passes that it may make.
    """
    notes, nearby = CheckNotes(NAME), subject.observed.nearby
    if not subject.observed.steady or subject.excuse:
        return notes.abstain(subject.excuse or "it answers at random")
    if subject.detects_gradients:
        return notes.abstain(DETECTS)
    if nearby is None or nearby.gradient is None:
        return notes.abstain("the model has no gradient")
    if subject.coarse:
        return notes.abstain("it computes with few digits, whose rounding is jumps, too")
    again = subject.observed.coarse  # the gradient that is known is of fewer digits
    screening = SCREENING + 2 * again
    count = min(MOST, len(nearby.inputs), allowance // (2 * screening))
    if count < 1 or allowance < screening * count + HALVING:
        return notes.leave_out(screening + HALVING)
    rows = subject.rows(count, of=len(nearby.inputs))
    segments = _segments(subject, nearby, rows, again=again)
    low, high = segments.at(-torch.ones(count).double()), segments.at(torch.ones(count).double())
    notes.looked_at = f"{counted(count, 'segment')} of {2 * REACH:g} of the bounds"
    change = (high - low + 2 * segments.slopes).abs()
    size = torch.maximum(change, 2 * torch.maximum(segments.slopes.abs(), segments.usual))
    noise = ROUNDINGS * EPSILON * segments.cotangents.norm(dim=1)
    noise *= nearby.outputs.double().abs().max()
    odd = ((high - low).abs() > torch.maximum(UNEXPLAINED * size, noise)).nonzero().flatten()
    halved = odd[: min(MOST_HALVED, (allowance - screening * count) // HALVING)]
    notes.figures["not explained by the gradient"] = len(odd)
    if not len(halved):
        return notes.report()
    found = _jumps(segments.take(halved), low[halved], high[halved])
    jumps = found > torch.maximum(RELEVANT * size[halved], noise[halved])
    notes.looked_at += f", {len(halved)} of them halved {HALVINGS} times"
    notes.figures["jumps"] = int(jumps.sum())
    # Those that were halved stand for the others that the gradient does not explain.
    share = float(jumps.double().mean()) * len(odd) / count
    if share >= LEAST_SHARE:
        shares = found[jumps] / size[halved][jumps]
        seen = FlagShare(count=int(jumps.sum()), of=len(halved))
        words = (
            f"{seen.count} of {counted(seen.of, 'segment')} that were looked at closely, "
            f"of the {len(odd)} of {count} that the gradient does not explain"
        )
        serious = share >= SERIOUS_SHARE and seen.count >= LEAST_SERIOUS
        notes.found.append(_flag(seen, words, float(shares.max()), serious=serious))
    return notes.report()


def are_serious(found: Iterable[ExaminedFlag]) -> bool:
    """Returns whether the loss was found to jump on a large share of the examples."""
    return any((each.kind, each.severity) == (KIND, "serious") for each in found)


def _segments(subject: Subject, nearby: Nearby, rows: list[int], *, again: bool) -> Segments:
    sample, limits, reach = (
        subject.observed.sample,
        subject.classifier.bounds,
        REACH * subject.width,
    )
    points = nearby.inputs[rows]
    gradient = torch.zeros_like(points) if nearby.gradient is None else nearby.gradient[rows]
    labels = sample.labels[rows].cpu()
    streams = ExampleStreams.derive(derive_key("gibbon", "segments"), sample.ids[rows].cpu())
    offsets = reach * streams.signs(points.shape[1:])
    points = points.clamp(limits.low + reach, limits.high - reach)
    ascent = subject.classifier.outputs.ascent
    if again:
        _, cotangents, gradient = subject.ascend(points, labels, ascent)
    else:
        cotangents = ascent(nearby.outputs[rows], labels)
    cotangents = cotangents.double()
    moved = (offsets.double() * gradient.double()).flatten(1)
    return Segments(subject, points, offsets, cotangents, moved.sum(1), moved.norm(dim=1))


def _jumps(segments: Segments, low: Tensor, high: Tensor) -> Tensor:
    """Returns the size of the jump that halving each segment ends at, 0 if there is none, (M,).

    ``low`` and ``high`` are the values at both ends.
    """
    left, right = torch.full_like(low, -1.0), torch.full_like(high, 1.0)
    changes = []
    for _ in range(HALVINGS):
        middle = (left + right) / 2
        value = segments.at(middle)
        lower = (value - low).abs() > (high - value).abs()
        left, low = torch.where(lower, left, middle), torch.where(lower, low, value)
        right, high = torch.where(lower, middle, right), torch.where(lower, value, high)
        changes.append((high - low).abs())
    jump, before, length = changes[-1], changes[-1 - COMPARED], right - left
    sides = torch.maximum(
        (segments.at(left - length) - low).abs(), (segments.at(right + length) - high).abs()
    )
    stays = (jump >= KEPT * before) & (sides <= ISOLATED * jump)
    return torch.where(stays, jump, 0.0)


def _flag(seen: FlagShare, words: str, largest: float, *, serious: bool) -> ExaminedFlag:
    return ExaminedFlag(
        kind=KIND,
        severity="serious" if serious else "warning",
        share=seen,
        sentence="the loss jumps between inputs that differ by a hundred-thousandth of their "
        f"range, on {words}; the largest jump is {largest:.0%} of the change over its segment",
    )
