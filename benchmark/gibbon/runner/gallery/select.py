"""Picks a few examples of each attack for its gallery, while their candidates are there.

Half of them are random, the same for every cell of a dataset; the others are those misled with the
greatest confidence, and one that withstood.  What is picked batch by batch is what would be picked
of all examples at once.  Only the largest epsilon of each source and attack has a gallery.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gibbon.core.rng import ExampleStreams, derive_key
from gibbon.core.threat import Bounds, Verdict
from gibbon.datasets.base import Batch, Dataset
from gibbon.records.gallery import COLOURS, Gallery, quantised, quantised_change
from gibbon.records.outcomes import TargetOutcome
from gibbon.runner.plan.cell import Cell, Plan, PlannedExperiment
from gibbon.runner.plan.loading import LoadedModel
from gibbon.verify.judge import Judged

ROOM = 1_000_000  # bytes of all galleries of a run, before they are compressed
MOST, FEWEST = 8, 2  # examples of a gallery
SIDES = (96, 64, 48, 32)  # of larger pictures, tried in this order
WITHSTOOD = 1  # of the chosen examples

# Pictures that take less of the inputs' bounds than this would all be drawn in a few shades of one
# grey: whitened ones, whose bounds are wide.
LITTLE = 0.25
RANDOM, MISLED, STOOD = "random", "misled", "withstood"


@dataclass(frozen=True)
class Frame:
    """What the galleries of an experiment have in common.

    Args:
        count: examples of a gallery.
        side: of a picture; larger ones are made smaller.
        random: int64, ids of the random examples.
        digests: of the cells that have a gallery.
        bounds: of the inputs.
        shape: (H, W) of the inputs.
    """

    count: int
    side: int
    random: NDArray[np.int64]
    digests: frozenset[str]
    bounds: Bounds
    shape: tuple[int, int]


@dataclass(frozen=True)
class Picked:
    """Examples that may be shown, in the order of the dataset; every array has N examples."""

    frame: Frame
    example_id: NDArray[np.int64]
    label: NDArray[np.int32]
    before: NDArray[np.int32]
    after: NDArray[np.int32]
    sure_before: NDArray[np.float32]
    sure_after: NDArray[np.float32]
    valid: NDArray[np.bool_]
    clean: NDArray[np.float32]
    change: NDArray[np.float32]

    def then(self, more: Picked) -> Picked:
        """Returns these and more examples after them, without those that can't be shown now."""
        both = self._each(lambda name: np.concatenate([getattr(self, name), getattr(more, name)]))
        return both.take(both.ranks.candidates(self.frame))

    def take(self, places: NDArray[np.int64]) -> Picked:
        """Returns some of the examples."""
        return self._each(lambda name: getattr(self, name)[places])

    def _each(self, array: Callable[[str], Any]) -> Picked:
        names = [each.name for each in fields(self) if each.name != "frame"]
        return Picked(self.frame, **{name: array(name) for name in names})

    @property
    def ranks(self) -> Ranks:
        """What is known of these examples."""
        return Ranks(
            self.example_id,
            misled=(self.after != self.label) & self.valid,
            clean_right=self.before == self.label,
            confidence=self.sure_after,
        )


@dataclass(frozen=True)
class Ranks:
    """What decides which examples are shown: arrays of shape (N,), in the order of the dataset."""

    example_id: NDArray[np.int64]
    misled: NDArray[np.bool_]
    clean_right: NDArray[np.bool_]
    confidence: NDArray[np.float32]

    @property
    def beaten(self) -> NDArray[np.int64]:
        """Places of the examples that the attack misled, the surest answer first."""
        return self._surest(self.misled & self.clean_right)

    @property
    def stood(self) -> NDArray[np.int64]:
        """Places of the examples that withstood, the surest answer first."""
        return self._surest(~self.misled)

    def _surest(self, which: NDArray[np.bool_]) -> NDArray[np.int64]:
        places = np.flatnonzero(which)
        return places[np.argsort(-self.confidence[places], kind="stable")]

    def candidates(self, frame: Frame) -> NDArray[np.int64]:
        """Returns the places of those that may be shown, whatever comes after them, ascending."""
        places = {
            *np.flatnonzero(np.isin(self.example_id, frame.random)).tolist(),
            *self.beaten[: frame.count].tolist(),
            *self.stood[: frame.count].tolist(),
        }
        return np.array(sorted(places), dtype=np.int64)

    def chosen(self, frame: Frame) -> dict[int, str]:
        """Returns which examples are shown and why, by their places, ascending."""
        why = dict.fromkeys(np.flatnonzero(np.isin(self.example_id, frame.random)).tolist(), RANDOM)
        stood = [(int(place), STOOD) for place in self.stood]
        beaten = [(int(place), MISLED) for place in self.beaten]
        for place, reason in [*stood[:WITHSTOOD], *beaten, *stood[WITHSTOOD:]]:
            if len(why) >= frame.count:
                break
            why.setdefault(place, reason)
        return dict(sorted(why.items()))


def frames(plan: Plan) -> dict[str, Frame]:
    """Returns the frames of a run's experiments that have galleries, by their datasets' names.

    Those whose inputs are no pictures have none, and those that ask for errors alone.
    """
    wanted = {
        each.spec.dataset.name: frozenset(cell.digest for cell in _largest(each))
        for each in plan.experiments
        if not each.spec.error_only
    }
    room = ROOM // max(1, sum(map(len, wanted.values())))
    found = {}
    for experiment in plan.experiments:
        name = experiment.spec.dataset.name
        fitting = _fitting(experiment.dataset, room) if name in wanted else None
        if fitting is not None:
            side, count = fitting
            height, width = experiment.dataset.input_shape[1:]
            found[name] = Frame(
                count,
                side,
                _shuffled(plan, experiment)[: count - count // 2],
                wanted[name],
                experiment.dataset.bounds,
                (height, width),
            )
    return found


def pick(frame: Frame, batch: Batch, judged: Judged, *, clean: TargetOutcome) -> Picked | None:
    """Returns the examples of a batch that may be shown; None where the source was not asked.

    ``clean`` is what the source says of the batch's clean inputs.
    """
    if judged.answers is None:
        return None
    everything = Ranks(
        _numbers(batch.ids),
        misled=_numbers(judged.answers.predicted != batch.labels)
        & (_numbers(judged.verdict) == Verdict.VALID),
        clean_right=clean.predicted == _numbers(batch.labels),
        confidence=_numbers(judged.answers.confidence),
    )
    places = everything.candidates(frame)
    index = torch.from_numpy(places).to(batch.inputs.device)
    inputs = batch.inputs[index]
    return Picked(
        frame,
        example_id=everything.example_id[places].astype(np.int64),
        label=_numbers(batch.labels[index]).astype(np.int32),
        before=clean.predicted[places],
        after=_numbers(judged.answers.predicted[index]).astype(np.int32),
        sure_before=clean.confidence[places],
        sure_after=everything.confidence[places].astype(np.float32),
        valid=_numbers(judged.verdict[index]) == Verdict.VALID,
        clean=_shrunk(inputs, frame.side),
        change=_shrunk((judged.candidates[index] - inputs).nan_to_num(0, 0, 0), frame.side),
    )


def gallery(picked: Picked, *, digest: str) -> Gallery:
    """Returns the gallery of a cell, of all that was picked of it."""
    frame = picked.frame
    chosen = picked.ranks.chosen(frame)
    shown = picked.take(np.array(list(chosen), dtype=np.int64))
    change, scale = quantised_change(shown.change)
    low, high = drawn = _drawn_range(shown)
    return Gallery(
        digest=digest,
        why=tuple(chosen.values()),
        example_id=shown.example_id,
        label=shown.label,
        before=shown.before,
        after=shown.after,
        sure_before=shown.sure_before,
        sure_after=shown.sure_after,
        valid=shown.valid,
        clean=quantised(shown.clean, low=low, high=high),
        change=change,
        scale=scale,
        low=low,
        high=high,
        shape=frame.shape,
        narrowed=drawn != (frame.bounds.low, frame.bounds.high),
    )


def unattacked(experiment: PlannedExperiment, source: LoadedModel) -> Cell:
    """Returns the unattacked cell of a source."""
    return next(cell for cell in experiment.cells if cell.attack is None and cell.source is source)


def _largest(experiment: PlannedExperiment) -> Iterator[Cell]:
    """Yields the cells of each source and attack at its largest epsilon."""
    largest: dict[tuple[str, str], Cell] = {}
    for cell in experiment.cells:
        key = (cell.source.name, cell.label)
        if cell.attack is not None and (key not in largest or cell.epsilon > largest[key].epsilon):
            largest[key] = cell
    yield from largest.values()


def _fitting(dataset: Dataset, room: int) -> tuple[int, int] | None:
    """Returns the side that pictures are shown with and how many fit; None for other inputs."""
    shape = dataset.input_shape
    if len(shape) != 3 or shape[0] not in COLOURS:
        return None
    for side in SIDES:
        height, width = _size(shape[1], shape[2], side)
        count = min(MOST, room // (2 * shape[0] * height * width))
        if count >= (FEWEST if side == SIDES[-1] else MOST // 2):
            return side, count
    return None


def _shuffled(plan: Plan, experiment: PlannedExperiment) -> NDArray[np.int64]:
    """Returns the examples of an experiment in an order that the suite's seed decides."""
    key = derive_key(plan.suite.seed, "pictures", experiment.spec.dataset.name)
    drawn = ExampleStreams.derive(key, torch.from_numpy(experiment.ids)).uniform(())
    order = np.argsort(drawn.numpy(), kind="stable")
    shuffled: NDArray[np.int64] = experiment.ids[order]
    return shuffled


def _shrunk(values: Tensor, side: int) -> NDArray[np.float32]:
    """Returns pictures whose longer side is at most ``side``: means of the pixels they cover."""
    size = _size(values.shape[-2], values.shape[-1], side)
    if size != tuple(values.shape[-2:]):
        values = torch.nn.functional.adaptive_avg_pool2d(values, size)
    shrunk: NDArray[np.float32] = _numbers(values.float())
    return shrunk


def _size(height: int, width: int, side: int) -> tuple[int, int]:
    shrink = min(1.0, side / max(height, width))
    return max(1, round(height * shrink)), max(1, round(width * shrink))


def _drawn_range(shown: Picked) -> tuple[float, float]:
    """Returns what is drawn black and what white: the bounds, or less where little is needed."""
    bounds = shown.frame.bounds
    both = np.stack((shown.clean, shown.clean + shown.change))
    if both.size == 0:
        return bounds.low, bounds.high
    low, high = float(both.min()), float(both.max())
    if 0 < high - low < LITTLE * (bounds.high - bounds.low):
        return low, high
    return bounds.low, bounds.high


def _numbers(values: Tensor) -> NDArray[Any]:
    array: NDArray[Any] = values.detach().cpu().numpy()
    return array
