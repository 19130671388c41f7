"""Registries of models and trainers.

All models come from installed packages through the entry-point groups ``gibbon.models`` and
``gibbon.trainers``, also those of the model zoo.  torch is not imported before a model is built.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from gibbon.core.registry import Registry

if TYPE_CHECKING:
    from torch import nn

    from gibbon.models.classifier import Classifier
    from gibbon.specs.suite import DatasetSpec, ModelSpec

OWN: Final = "own"  # the trainer of users' own models

# A model builder takes no argument, or one named ``weights``: a path that replaces its own file.
ModelBuilder = Callable[..., "Classifier"]


@dataclass(frozen=True)
class TrainingProgress:
    """Progress of a training, reported after every few batches.

    Args:
        step, steps: batches done so far, and in the whole training.
        epoch, epochs: epochs finished so far, and in the whole training.
        loss: mean training loss since the last report.
        note: a sentence for the user, such as a warning about the last epoch; mostly empty.
        may_stop: whether the training may end before its last epoch.
    """

    step: int
    steps: int
    epoch: int
    epochs: int
    loss: float
    note: str = ""
    may_stop: bool = False


@dataclass(frozen=True)
class OwnTraining:
    """A user's own model to train, and the data to train it on.

    Args:
        model: source of the model.
        dataset: training examples.
        validation: examples that decide which epoch was best; some of the training examples are
            held out if None.
        settings: fields of the recipe, which replace those of a recipe file; tables are mappings.
        module: a module or a classifier in place of the source, trained in place; None if the
            source is to be built.
        data, validation_data: data in place of the datasets' sources; None if these are opened.
    """

    model: ModelSpec
    dataset: DatasetSpec
    validation: DatasetSpec | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    module: nn.Module | Classifier | None = None
    data: object = None
    validation_data: object = None


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
        own: the model of the trainer `OWN`; None for all others.
        tensorboard: folder for TensorBoard's event files, relative to ``output``; none are written
            if None.
        decoders: processes that decode images; derived from the number of processors if None.
    """

    output: Path
    report: Callable[[TrainingProgress], None]
    seed: int | None = None
    epochs: int | None = None
    device: str = "cpu"
    fresh: bool = False
    data_dir: Path | None = None
    recipe: Path | None = None
    own: OwnTraining | None = None
    tensorboard: Path | None = None
    decoders: int | None = None


@dataclass(frozen=True)
class TrainingResult:
    """Results of a training.

    Args:
        weights: the weights file.
        card: its card, a JSON file.
        summary: a line about them.
        notes: sentences about what went wrong or was decided.
    """

    weights: Path
    card: Path
    summary: str
    notes: tuple[str, ...] = ()


Trainer = Callable[[TrainingRequest], TrainingResult]

MODELS: Registry[ModelBuilder] = Registry("model", group="gibbon.models")
TRAINERS: Registry[Trainer] = Registry("model with a recipe", group="gibbon.trainers")
