"""The Python call that trains a user's own model adversarially."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from gibbon.api.request import (
    DESCRIBED,
    Budget,
    Data,
    Model,
    dataset_spec,
    in_bounds,
    model_keys,
    model_name,
)
from gibbon.core.errors import SpecError
from gibbon.core.files import StrPath
from gibbon.core.reading import expanded
from gibbon.core.threat import Epsilon
from gibbon.datasets import DATASETS
from gibbon.models.registry import OWN, TRAINERS, OwnTraining, TrainingRequest, TrainingResult
from gibbon.runner.device.choose_device import choose_device
from gibbon.runner.run_progress.training_bar import training_bar
from gibbon.specs.decoding import decode_spec
from gibbon.specs.suite import DatasetSpec, ModelSpec

WHERE = "train"


def train(
    model: Model,
    data: Data,
    *,
    output: StrPath,
    objective: str | None = None,
    epsilon: Budget | None = None,
    validation: Data | None = None,
    recipe: Mapping[str, Any] | StrPath | None = None,
    name: str | None = None,
    norm: str | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    seed: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    outputs: str | None = None,
    bounds: Sequence[float] | None = None,
    device: str = "cpu",
    fresh: bool = False,
    data_folder: StrPath | None = None,
    progress: bool = True,
    tensorboard: StrPath | None = "tensorboard",
) -> TrainingResult:
    """Trains a model adversarially and returns the files that it wrote, with a line of figures.

    Weights, card and log are written to ``output``, with checkpoints during the training: an
    interrupted call continues if it is made again, and a finished one is not repeated.  A module is
    trained in place, and has the weights of the file afterwards; it is known again by its code, not
    by the weights that it starts from.  The best epoch is kept, by the error of PGD on
    ``validation``, or on a tenth of the training examples that is held out.

    Args:
        model: a module that returns logits, or a source as of `gibbon.evaluate`.
        data: training examples: a torch dataset or loader, a pair of tensors, or a source.
        output: folder for the files, which are named after the model.
        objective: ``"pgd"`` (Madry et al. 2018), ``"trades"`` (Zhang et al. 2019), ``"fgsm"`` with
            a random start (Wong et al. 2020), ``"free"`` (Shafahi et al. 2019) or ``"standard"``.
        epsilon: budget in units of the input, such as ``8 / 255`` or ``"8/255"``.
        validation: examples that decide which epoch was best.
        recipe: fields of the recipe, such as ``{"optimiser.learning_rate": 0.01}``, or a TOML file;
            the other arguments replace its fields.
        name: name of the model and of the files; of the source or the class by default.
        norm: ``"linf"`` or ``"l2"``.
        epochs: passes over the training examples; 30 by default.
        batch_size: examples a step; 128 by default.
        seed: seed of every random number; 0 by default.
        mean: mean of the normalisation of inputs in [0, 1], a number a channel.
        std: divisor of it.
        outputs: meaning of the model's outputs: ``"logits"``, ``"probabilities"`` or
            ``"log-scores"``.
        bounds: lowest and highest value of inputs that are no pictures.
        device: device to train on.
        fresh: whether to ignore a checkpoint or a finished training.
        data_folder: folder of datasets that are not embedded.
        progress: whether to show the progress.
        tensorboard: folder for TensorBoard's files, relative to ``output``; none if None.

    Raises a `RequestError` that names model, data, recipe or file.
    """
    declared = {"mean": mean, "std": std, "outputs": outputs}
    keys = {"name": name or model_name(model), **model_keys(model, declared)}
    if name is not None:
        keys["name"] = name
    given = {
        "objective.name": objective,
        "objective.epsilon": None if epsilon is None else Epsilon.parse(epsilon, where="epsilon"),
        "objective.norm": norm,
        "batch_size": batch_size,
    }
    settings = dict(recipe) if isinstance(recipe, Mapping) else {}
    settings |= {key: value for key, value in given.items() if value is not None}
    own = OwnTraining(
        decode_spec(ModelSpec, keys, where=WHERE),
        _spec(data, bounds, split="train"),
        None if validation is None else _spec(validation, bounds, split="test"),
        settings,
        module=None if isinstance(model, DESCRIBED) else model,
        data=_object(data),
        validation_data=_object(validation),
    )
    file = (
        None
        if recipe is None or isinstance(recipe, Mapping)
        else expanded(os.fspath(recipe), SpecError)
    )
    with _reporting(own.model.name, progress) as report:
        request = TrainingRequest(
            expanded(output, SpecError),
            report,
            seed=seed,
            epochs=epochs,
            device=str(choose_device(device, where="device")),
            fresh=fresh,
            data_dir=None if data_folder is None else expanded(data_folder, SpecError),
            recipe=file,
            own=own,
            tensorboard=None if tensorboard is None else expanded(tensorboard, SpecError),
        )
        return TRAINERS.load(OWN)(request)


def _spec(data: Data, bounds: Sequence[float] | None, *, split: str) -> DatasetSpec:
    found = in_bounds(
        dataset_spec(os.fspath(data) if isinstance(data, os.PathLike) else data), bounds
    )
    if isinstance(found, DatasetSpec):
        return found
    if found.get("source") in DATASETS:
        found = {**found, "split": split}
    return decode_spec(DatasetSpec, found, where=WHERE)


def _object(data: Data | None) -> object:
    return None if data is None or isinstance(data, str | os.PathLike | DatasetSpec) else data


def _reporting(model: str, progress: bool) -> AbstractContextManager[Any]:
    return training_bar(model) if progress else nullcontext(lambda reported: None)
