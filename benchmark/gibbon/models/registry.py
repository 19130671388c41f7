"""Names of models and of trainers, ours and those of installed packages.

The benchmark knows no model by itself: all come through the entry points ``gibbon.models`` and
``gibbon.trainers``, those of the model zoo too.  No torch is imported before a model is built.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gibbon.core.registry import Registry

if TYPE_CHECKING:
    from gibbon.models.classifier import Classifier

# A model builder takes no argument, or one named ``weights``: a path that replaces its own file.
ModelBuilder = Callable[..., "Classifier"]


@dataclass(frozen=True)
class TrainingProgress:
    """Where a training stands, given to the caller after every few batches.

    Args:
        step, steps: batches done so far, and in the whole training.
        epoch, epochs: epochs finished so far, and in the whole training.
        loss: mean training loss since the last report.
    """

    step: int
    steps: int
    epoch: int
    epochs: int
    loss: float


@dataclass(frozen=True)
class TrainingRequest:
    """What `train` was asked for.

    Args:
        output: folder for the weights, the card and the checkpoint.
        seed: seed of everything random; None takes the recipe's.
        epochs: overrides the recipe's number of epochs.
        device: where to train, such as ``"cpu"``.
        fresh: ignore a checkpoint that is there and start again.
        report: called as training goes on.
        data_dir: where datasets that are not embedded are looked for, if not in the usual place.
    """

    output: Path
    report: Callable[[TrainingProgress], None]
    seed: int | None = None
    epochs: int | None = None
    device: str = "cpu"
    fresh: bool = False
    data_dir: Path | None = None


@dataclass(frozen=True)
class TrainingResult:
    """What a training made: the weights file, its card, and one line about them."""

    weights: Path
    card: Path
    summary: str


Trainer = Callable[[TrainingRequest], TrainingResult]

MODELS: Registry[ModelBuilder] = Registry("model", group="gibbon.models")
TRAINERS: Registry[Trainer] = Registry("model with a recipe", group="gibbon.trainers")
