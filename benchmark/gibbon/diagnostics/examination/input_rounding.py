"""Checks whether a model rounds its inputs, to 8 bits or to fewer steps.

One coordinate of each example, the one with the largest gradient, is moved within the cell of an
8-bit pixel.  A network answers a little otherwise; one that rounds its inputs, or that compresses
them as JPEG does, answers exactly alike, and otherwise only after a large step.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gibbon.diagnostics.examination.adapting_keys import adaptation_to
from gibbon.diagnostics.examination.closeness import EPSILON
from gibbon.diagnostics.examination.module_search import first_flat
from gibbon.diagnostics.examination.subject import CheckNotes, CheckReport, Subject, counted
from gibbon.records.examination import ExaminedFlag
from gibbon.records.flag_share import FlagShare

NAME = "rounding of the inputs"
CELL = 1 / 255  # of 8 bits, as a share of the bounds
# Within one cell whether values are rounded down, up or to the nearest.
FROM, TO = 0.1 * CELL, 0.4 * CELL
OFF_GRID = 0.05 * CELL  # half of a step that seldom leaves a cell, wherever it begins
LARGE = 0.3  # a step over many cells, as a share of the bounds
VISIBLE = 16  # roundings of an output that a step within the cell must be expected to exceed
SHARE = 0.5  # of the examples whose answers do not change
LEAST = 3  # examples
MOST = 8
PASSES = 5  # of an example


def input_rounding(subject: Subject, allowance: int) -> CheckReport:
    """Moves one coordinate of each example within a cell; raises ``rounded-inputs``."""
    notes, observed = CheckNotes(NAME), subject.observed
    if not observed.steady or subject.excuse:
        return notes.abstain(subject.excuse or "it answers at random")
    if subject.coarse:
        return notes.abstain("it computes with few digits, which rounds inputs, too")
    nearby = observed.nearby
    limit = None if nearby is None else len(nearby.inputs)
    count = min(MOST, len(observed.outputs), allowance // PASSES)
    if count < LEAST:
        return notes.leave_out(LEAST * PASSES)
    rows = subject.rows(count, of=limit)
    notes.looked_at = f"one coordinate of {counted(len(rows), 'example')}, moved within 1/255"
    width, bounds = subject.width, subject.classifier.bounds
    inputs = subject.batch(rows).inputs.cpu()
    gradient = None if nearby is None else nearby.gradient
    slope = torch.zeros_like(inputs) if gradient is None else gradient[rows]
    place = _places(slope, inputs)
    # Values near the upper bound are lowered, so that each step stays inside.
    base = inputs.clamp(bounds.low, bounds.high - CELL * width)
    start, near = _moved(base, place, FROM * width), _moved(base, place, TO * width)
    ground, step = subject.ask(start), subject.ask(near)
    same = (ground == step).all(1)
    notes.figures["unchanged"] = int(same.sum())
    if float(same.double().mean()) < SHARE:
        return notes.report()
    middle = (bounds.low + bounds.high) / 2
    up = base.flatten(1).gather(1, place[:, None]).flatten() < middle
    far = _moved(base, place, torch.where(up, LARGE, -LARGE) * width)
    change = (subject.ask(far) - ground).abs().amax(1)
    expected = change * (TO - FROM) / LARGE
    steepest = slope.flatten(1).gather(1, place[:, None]).flatten().abs().double()
    expected = torch.maximum(expected, steepest * (TO - FROM) * width)
    visible = expected > VISIBLE * EPSILON * ground.abs().amax(1)
    if nearby is not None:  # off the grid there are no ties that a maximum or a median has on it
        inner = nearby.inputs[rows]
        steps = [_moved(inner, place, sign * OFF_GRID * width) for sign in (-1, 1)]
        same &= (subject.ask(steps[0]) == subject.ask(steps[1])).all(1)
    shown = int((same & visible).sum())
    notes.figures["unchanged against expectation"] = shown
    if int(visible.sum()) < LEAST:
        return notes.abstain("steps within a cell are too small against rounding")
    if shown / int(visible.sum()) >= SHARE:
        path = first_flat(subject)
        adapted = adaptation_to(subject, path)
        notes.found.append(
            ExaminedFlag(
                kind="rounded-inputs",
                share=FlagShare(count=shown, of=int(visible.sum())),
                sentence="the outputs are exactly equal after a step within 1/255 for "
                f"{shown} of {counted(int(visible.sum()), 'example')}: the model rounds its inputs"
                + (f" (in {path})" if path else ""),
                advice=adapted.advice,
                suite=adapted.suite,
            )
        )
    return notes.report()


def _places(slope: Tensor, inputs: Tensor) -> Tensor:
    """Returns the coordinate of each example with the largest gradient, else the brightest."""
    steep, bright = slope.flatten(1).abs(), inputs.flatten(1)
    flat = steep.amax(1) == 0
    return torch.where(flat, bright.argmax(1), steep.nan_to_num(0.0).argmax(1))


def _moved(inputs: Tensor, place: Tensor, step: float | Tensor) -> Tensor:
    """Returns inputs with a step added at one coordinate of each example."""
    rows = inputs.flatten(1).clone()
    index = torch.arange(len(rows))
    rows[index, place] += step
    return rows.view_as(inputs)
