"""Evaluates a model on a sample, for its digest and its examination."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gibbon.core.plain_text import message_of
from gibbon.core.rng import ExampleStreams, derive_key
from gibbon.datasets.base import Batch
from gibbon.diagnostics.examination.closeness import relative_difference
from gibbon.diagnostics.examination.few_digits import has_few_digits
from gibbon.diagnostics.examination.observed import Nearby, OtherAnswers
from gibbon.models.classifier import Classifier
from gibbon.models.memory import in_pieces, is_shortage
from gibbon.models.repeatability import Cause, cause_of_change

NOISE = 0.1  # distance of the points from the data, as a share of the bounds
INSIDE = 0.005  # distance that they keep from the bounds, as a share of these
ALONE = 3  # examples that are given to the model one by one
MODES_SHARE, MODES_MOST = 4, 8  # of N examples, N / 4 and at most 8 are seen in both modes
GRADIENT_MODES = ("with gradients", "without gradients")
REPEATED = 1e-4  # relative difference of equal calls: a GPU's sums may differ, the batch does not
MOST_CALLS = 40  # that show why answers differ
KEPT = 64  # examples whose inputs and gradients are kept


def answers(run: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
    """Returns outputs on the CPU, in pieces if memory is short."""
    pieces = in_pieces(lambda part: run(inputs[part]), len(inputs), device=inputs.device)
    return torch.cat([each.detach().cpu() for each in pieces])


def plain_answers(classifier: Classifier, inputs: Tensor) -> Tensor:
    """Returns the outputs while no gradients are recorded."""
    with torch.no_grad():
        return answers(classifier, inputs)


def answers_with_gradients(classifier: Classifier, inputs: Tensor) -> Tensor:
    """Returns the outputs for inputs that require gradients, while these are recorded."""
    with torch.enable_grad():
        return answers(lambda part: classifier(part.detach().requires_grad_()), inputs)


def answers_inside_a_graph(classifier: Classifier, inputs: Tensor) -> Tensor:
    """Returns the outputs for inputs that are results of an operation with gradients."""

    def run(part: Tensor) -> Tensor:
        leaf = part.detach().requires_grad_()
        return classifier(leaf.view_as(leaf))

    with torch.enable_grad():
        return answers(run, inputs)


def points_nearby(
    classifier: Classifier, batch: Batch, *, key: str, distance: float = NOISE
) -> Tensor:
    """Returns a point a little off each example, inside of the bounds and off the grid of pixels.

    Each coordinate moves by half of ``distance`` at most, a share of the bounds.  The random
    numbers belong to the example (`ExampleStreams`).
    """
    streams = ExampleStreams.derive(derive_key("gibbon", key), batch.ids)
    noise = streams.uniform(batch.inputs.shape[1:])
    bounds = classifier.bounds
    points = batch.inputs + (noise - 0.5) * (distance * bounds.width)
    margin = INSIDE * bounds.width
    low, high = bounds.low + margin, bounds.high - margin
    # Reflected, not clamped: equal values would be ties of a maximum or a median.
    points = low + (points - low).abs_()
    return high - (high - points).abs_()


@dataclass(frozen=True, eq=False)
class OffDataPoints:
    """Points off the data, with the outputs and gradients of a model there, on its device."""

    points: Tensor
    outputs: Tensor
    gradient: Tensor | None

    @property
    def kept(self) -> Nearby:
        """The part that the examination needs, on the CPU."""
        if self.gradient is None:
            zero = torch.zeros(len(self.points), dtype=torch.bool)
            return Nearby(self.points[:KEPT].cpu(), self.outputs, None, zero)
        zero = (self.gradient == 0).flatten(1).all(1).cpu()
        gradient = self.gradient[:KEPT].cpu()
        return Nearby(self.points[:KEPT].cpu(), self.outputs, gradient, zero)


def off_the_data(classifier: Classifier, batch: Batch, *, key: str) -> OffDataPoints:
    """Returns outputs, and gradients of the ascent direction, at `points_nearby`."""
    points = points_nearby(classifier, batch, key=key)
    gradients: dict[int, Tensor] = {}

    def run(part: slice) -> Tensor:
        leaf = points[part].detach().requires_grad_()
        with torch.enable_grad():
            outputs = classifier(leaf)
        if outputs.requires_grad:
            ascent = classifier.outputs.ascent(outputs.detach(), batch.labels[part])
            # The same gradient as with `grad_outputs`, for which torch imports sympy.
            (found,) = torch.autograd.grad((outputs * ascent).sum(), leaf, allow_unused=True)
            if found is not None:  # as of layers in integers, which have none
                gradients[part.start] = found
        return outputs.detach().cpu()

    outputs = torch.cat(in_pieces(run, len(points), device=points.device))
    if not gradients:
        return OffDataPoints(points, outputs, None)
    return OffDataPoints(
        points, outputs, torch.cat([gradients[start] for start in sorted(gradients)])
    )


def in_other_modes(
    classifier: Classifier, batch: Batch, *, outputs: Tensor, off: OffDataPoints
) -> tuple[dict[str, tuple[OtherAnswers, Tensor | None]], bool]:
    """Returns answers one by one, and with gradients on and off, compared with those in the batch.

    ``outputs`` are those for the batch, without gradients; ``off`` holds points off the data.  The
    modes are compared on equal batches.  Each has the answers themselves, if there are any.  The
    second result is whether the model computes with few digits.
    """
    count = len(batch.inputs)
    single = sorted({0, count // 2, count - 1})[:ALONE]
    some = list(range(0, count, max(1, -(-count // _modes(count)))))
    inputs, points = batch.inputs, off.points

    coarse: list[bool] = []

    def one_by_one() -> Tensor:
        def run(given: Tensor) -> Tensor:
            return plain_answers(classifier, given)

        few, first = has_few_digits(run, inputs[single[0]][None])
        coarse.append(few)
        return torch.cat([first, *(run(inputs[row][None]) for row in single[1:])])

    found = {
        "alone": compared(one_by_one, outputs[single]),
        "with gradients": compared(
            lambda: answers_with_gradients(classifier, inputs[some]),
            plain_answers(classifier, inputs[some]),
        ),
        "without gradients": compared(
            lambda: plain_answers(classifier, points[some]),
            answers_inside_a_graph(classifier, points[some]),
        ),
    }
    return found, any(coarse)


def _modes(count: int) -> int:
    return max(1, min(MODES_MOST, count // MODES_SHARE))


def compared(run: Callable[[], Tensor], outputs: Tensor) -> tuple[OtherAnswers, Tensor | None]:
    """Returns the answers that a function gives, and their distance from earlier ones."""
    try:
        found = run()
    except Exception as error:
        if is_shortage(error):
            raise
        text = f"{type(error).__name__}: {message_of(error)}".splitlines()[0]
        return OtherAnswers(len(outputs), difference=torch.inf, error=text), None
    return comparison(outputs, found), found


def comparison(outputs: Tensor, others: Tensor) -> OtherAnswers:
    """Returns the largest difference of two answers, and how many predicted classes differ."""
    difference = float(relative_difference(outputs.cpu(), others.cpu()).max())
    changed = int((outputs.cpu().argmax(1) != others.cpu().argmax(1)).sum())
    return OtherAnswers(len(outputs), difference, changed)


def cause_of(classifier: Classifier, inputs: Tensor, *, calls: int = MOST_CALLS) -> Cause:
    """Returns why a model answers the same inputs, shape (N, *input_shape), differently."""
    return cause_of_change(
        lambda given: plain_answers(classifier, given),
        inputs,
        classifier=classifier,
        alike=lambda one, other: float(relative_difference(one, other).max()) <= REPEATED,
        calls=calls,
    )


def largest(comparisons: Sequence[OtherAnswers]) -> OtherAnswers:
    """Returns the comparison with the largest difference."""
    return max(comparisons, key=lambda each: each.difference)
