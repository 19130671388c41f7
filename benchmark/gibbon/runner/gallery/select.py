"""Selects the cells that have a gallery, and the examples that it shows.

Half of the examples are random, the same for all cells of a dataset; the others are those
misclassified with the greatest confidence, and one that withstood the attack.  Only the largest
epsilon of each source and attack has a gallery.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from gibbon.core.rng import ExampleStreams, derive_key
from gibbon.core.threat import Bounds
from gibbon.datasets.base import Dataset
from gibbon.records.gallery import COLOURS
from gibbon.runner.plan.load_model import LoadedModel
from gibbon.runner.plan.planned import Cell, Plan, PlannedExperiment

ROOM = 1_000_000  # bytes of all galleries of a run, before they are compressed
MOST, FEWEST = 8, 2  # examples of a gallery
SIDES = (96, 64, 48, 32)  # longer sides that larger pictures are reduced to, tried in this order
FEWEST_WITHSTOOD = 1  # examples of a gallery that withstood the attack, if there is one
RANDOM, MISCLASSIFIED, WITHSTOOD = "random", "misled", "withstood"  # reasons, as recorded


@dataclass(frozen=True)
class GalleryFrame:
    """Size and content that all galleries of an experiment share.

    Args:
        count: number of examples in a gallery.
        side: longer side of a picture, in pixels; larger pictures are made smaller.
        random: int64, ids of the random examples.
        digests: digests of the cells that have a gallery.
        bounds: bounds of the inputs.
        shape: (H, W) of the inputs.
    """

    count: int
    side: int
    random: NDArray[np.int64]
    digests: frozenset[str]
    bounds: Bounds
    shape: tuple[int, int]


@dataclass(frozen=True)
class Ranks:
    """Ranks examples for a gallery; every array has shape (N,), in the order of the dataset."""

    example_id: NDArray[np.int64]
    misclassified: NDArray[np.bool_]
    clean_correct: NDArray[np.bool_]
    confidence: NDArray[np.float32]

    @property
    def successes(self) -> NDArray[np.int64]:
        """Positions of the examples misclassified under attack alone, most confident first."""
        return self._most_confident(self.misclassified & self.clean_correct)

    @property
    def withstood(self) -> NDArray[np.int64]:
        """Positions of the examples that withstood the attack, most confident first."""
        return self._most_confident(~self.misclassified)

    def _most_confident(self, which: NDArray[np.bool_]) -> NDArray[np.int64]:
        places = np.flatnonzero(which)
        return places[np.argsort(-self.confidence[places], kind="stable")]

    def chosen(self, frame: GalleryFrame) -> dict[int, str]:
        """Returns the positions of the examples to show, ascending, each with its reason."""
        random = np.flatnonzero(np.isin(self.example_id, frame.random))
        reasons = dict.fromkeys(random.tolist(), RANDOM)
        first, more = np.split(self.withstood, [FEWEST_WITHSTOOD])
        for place in np.concatenate((first, self.successes, more)).tolist():
            if len(reasons) < frame.count:
                reason = MISCLASSIFIED if self.misclassified[place] else WITHSTOOD
                reasons.setdefault(place, reason)
        return dict(sorted(reasons.items()))


def frames(plan: Plan) -> dict[str, GalleryFrame]:
    """Returns the frames of a run's experiments, by the names of their datasets.

    Experiments whose inputs are not pictures, and error-only ones, have no galleries.
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
        found_room = _size_and_count(experiment.dataset, room) if name in wanted else None
        if found_room is not None:
            side, count = found_room
            height, width = experiment.dataset.input_shape[1:]
            found[name] = GalleryFrame(
                count,
                side,
                _shuffled(plan, experiment)[: count - count // 2],
                wanted[name],
                experiment.dataset.bounds,
                (height, width),
            )
    return found


def unattacked_cell(experiment: PlannedExperiment, source: LoadedModel) -> Cell:
    """Returns the unattacked cell of a source."""
    return next(cell for cell in experiment.cells_of(source) if cell.attack is None)


def _largest(experiment: PlannedExperiment) -> Iterator[Cell]:
    """Yields the cells of each source and attack at its largest epsilon."""
    largest: dict[tuple[str, str], Cell] = {}
    for cell in experiment.cells:
        key = (cell.source.name, cell.label)
        if cell.attack is not None and (key not in largest or cell.epsilon > largest[key].epsilon):
            largest[key] = cell
    yield from largest.values()


def _size_and_count(dataset: Dataset, room: int) -> tuple[int, int] | None:
    """Returns the side of the pictures and their number in a gallery; None for other inputs."""
    shape = dataset.input_shape
    if len(shape) != 3 or shape[0] not in COLOURS:
        return None
    for side in SIDES:
        height, width = picture_size(shape[1], shape[2], side)
        count = min(MOST, room // (2 * shape[0] * height * width))
        if count >= (FEWEST if side == SIDES[-1] else MOST // 2):
            return side, count
    return None


def _shuffled(plan: Plan, experiment: PlannedExperiment) -> NDArray[np.int64]:
    """Returns the ids of an experiment's examples in an order derived from the suite's seed."""
    key = derive_key(plan.suite.seed, "pictures", experiment.spec.dataset.name)
    drawn = ExampleStreams.derive(key, torch.from_numpy(experiment.ids)).uniform(())
    order = np.argsort(drawn.numpy(), kind="stable")
    shuffled: NDArray[np.int64] = experiment.ids[order]
    return shuffled


def picture_size(height: int, width: int, side: int) -> tuple[int, int]:
    """Returns height and width of a picture whose longer side is at most ``side``."""
    shrink = min(1.0, side / max(height, width))
    return max(1, round(height * shrink)), max(1, round(width * shrink))
