"""Chooses the examples of a cell that are kept."""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from gibbon.core.errors import RunFolderError
from gibbon.core.rng import ExampleStreams, derive_key
from gibbon.records.kept_examples import EXAMPLES
from gibbon.records.outcomes import Outcome
from gibbon.runner.plan.planned import Cell, Plan, PlannedExperiment
from gibbon.specs.keep_examples import KeepExamples

_FLOAT: Final = 4  # bytes of a number


@dataclass(frozen=True)
class KeptChoice:
    """The examples that are kept: ``all``, ``misclassified``, or some ids of each dataset.

    Args:
        keep: what the settings say, else the suite.
        sample: int64, the ids that are kept of each dataset, by its name, if ``keep`` is a number.
    """

    keep: KeepExamples
    sample: dict[str, NDArray[np.int64]]

    def chosen(self, cell: Cell, outcome: Outcome) -> NDArray[np.bool_]:
        """Returns which examples of an outcome of the cell are kept, shape (N,)."""
        if self.keep == "all":
            return np.ones(len(outcome.example_id), dtype=np.bool_)
        if self.keep != "misclassified":
            return np.isin(outcome.example_id, self.sample[cell.dataset])
        if cell.source.digest in outcome.scores:
            return outcome.misclassified(cell.source.digest)
        return outcome.any_misclassified


def choice_of(plan: Plan) -> KeptChoice | None:
    """Returns which examples the settings of a plan, else its suite, keep; None for none."""
    keep = plan.settings.keep_examples
    if keep is None:
        keep = plan.suite.keep_examples
    if not keep:
        return None
    if isinstance(keep, str):
        return KeptChoice(keep, {})
    return KeptChoice(
        keep, {each.spec.dataset.name: _sample(plan, each, keep) for each in plan.experiments}
    )


def _sample(plan: Plan, experiment: PlannedExperiment, count: int) -> NDArray[np.int64]:
    """Returns ids of a dataset, equal for all cells; those of a shard include those of the run."""
    key = derive_key(plan.suite.seed, "kept", experiment.spec.dataset.name)
    drawn = ExampleStreams.derive(key, torch.from_numpy(experiment.ids)).uniform(())
    order = np.argsort(drawn.numpy(), kind="stable")
    ids: NDArray[np.int64] = np.sort(experiment.ids[order[:count]])
    return ids


def most_kept(plan: Plan) -> int:
    """Returns the bytes of all that is kept, at most."""
    choice = choice_of(plan)
    return 0 if choice is None else _most(plan, choice)[2]


def size_note(plan: Plan, folder: Path) -> str:
    """Returns a sentence that says how much is kept, and where; empty if nothing is kept.

    Raises `RunFolderError` if the disk has less room.
    """
    choice = choice_of(plan)
    if choice is None:
        return ""
    cells, examples, size = _most(plan, choice)
    place = folder / EXAMPLES
    most = "at most " if choice.keep == "misclassified" else ""
    said = (
        f"keep_examples = {choice.keep}: keeps {most}{examples:,} adversarial examples of "
        f"{cells:,} attacked cells, and their clean inputs, {most or 'at most '}"
        f"{size / 1e6:,.1f} MB, in {place}"
    )
    free = shutil.disk_usage(next(each for each in (place, *place.parents) if each.exists())).free
    if size > free:
        raise RunFolderError(
            f"{said}: the disk has {free / 1e6:,.0f} MB left; keep fewer, such as "
            "--keep-examples 100, or choose another folder with --output"
        )
    return said


def _most(plan: Plan, choice: KeptChoice) -> tuple[int, int, int]:
    """Returns the attacked cells, their kept examples, and the bytes of these with clean inputs."""
    cells = examples = size = 0
    for experiment in plan.experiments:
        attacked = sum(cell.attack is not None for cell in experiment.cells)
        count = len(experiment.ids)
        if not isinstance(choice.keep, str):
            count = min(count, choice.keep)
        cells, examples = cells + attacked, examples + attacked * count
        size += (attacked + 1) * count * _FLOAT * math.prod(experiment.dataset.input_shape)
    return cells, examples, size
