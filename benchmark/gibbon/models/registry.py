"""Registries of models and trainers.

All models come from installed packages through the entry-point groups ``gibbon.models`` and
``gibbon.trainers``, also those of the model zoo.  torch is not imported before a model is built.
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
    """Progress of a training, reported after every few batches.

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
    """Arguments of a training.

    Args:
        output: folder for the weights, the card and the checkpoint.
        seed: seed of every random number; the recipe's if None.
        epochs: number of epochs; the recipe's if None.
        device: device to train on, such as ``"cpu"``.
        fresh: whether to ignore a checkpoint and start again.
        report: called every few batches.
        data_dir: folder of datasets that are not embedded; the default one if None.
        recipe: TOML file of a recipe in place of the model's own; that one if None.
    """

    output: Path
    report: Callable[[TrainingProgress], None]
    seed: int | None = None
    epochs: int | None = None
    device: str = "cpu"
    fresh: bool = False
    data_dir: Path | None = None
    recipe: Path | None = None


@dataclass(frozen=True)
class TrainingResult:
    """Results of a training: the weights file, its card, and a line about them."""

    weights: Path
    card: Path
    summary: str


Trainer = Callable[[TrainingRequest], TrainingResult]

MODELS: Registry[ModelBuilder] = Registry("model", group="gibbon.models")
TRAINERS: Registry[Trainer] = Registry("model with a recipe", group="gibbon.trainers")
