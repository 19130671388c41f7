"""Trains a user's own model adversarially: the trainer `gibbon.models.registry.OWN`."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn

from gibbon.core.errors import (
    DatasetError,
    ModelError,
    RunFolderError,
    SpecError,
    WeightsError,
)
from gibbon.core.frames import OURS
from gibbon.core.registry import raised_within, their_code
from gibbon.core.rng import derive_key
from gibbon.datasets import DataRequest
from gibbon.datasets.base import Dataset
from gibbon.datasets.open import bounds_of, open_dataset
from gibbon.datasets.wrap import adopt_data
from gibbon.models.classifier import Classifier
from gibbon.models.registry import (
    OwnTraining,
    TrainingProgress,
    TrainingRequest,
    TrainingResult,
)
from gibbon.models.sources import BuiltModel
from gibbon.models.sources.build import build_model, check_model
from gibbon.models.sources.wrap_module import adopt_model
from gibbon.models.weights import file_digest, read_weights
from gibbon.specs.naming import RUBBISH
from gibbon.specs.suite import DatasetSpec, ModelSpec
from gibbon_zoo.atomic import write_in_folder
from gibbon_zoo.devices import device_name, usable_device
from gibbon_zoo.learner import ExampleFeed, StoredExamples
from gibbon_zoo.monitor_settings import MonitorSettings
from gibbon_zoo.own_card import OwnCard, read_own_card, write_own_card
from gibbon_zoo.own_learner import OwnTask
from gibbon_zoo.own_measurement import guessing_note, measure_network, overfitting_note
from gibbon_zoo.own_objectives import objective_threat
from gibbon_zoo.own_probe import probe_network
from gibbon_zoo.own_recipe import FILLED_IN, OwnRecipe, own_recipe
from gibbon_zoo.procedure import Trained, carry_out
from gibbon_zoo.trained_network import TRIED, TrainedNetwork, put_back
from gibbon_zoo.training import Weights
from gibbon_zoo.training_lock import train_once

CARD_STEPS = 20  # of PGD for the figures of the card
NAMED = 5  # files that an error names


def train_own(request: TrainingRequest) -> TrainingResult:
    """Trains a user's model and writes weights, card and log to the request's folder.

    The files are named after the model.  During training, checkpoints lie beside them, from which
    an equal request resumes; a finished training is not repeated.  Raises a `RequestError` that
    names model, dataset, recipe or file.
    """
    own = request.own
    if own is None:
        raise SpecError("own trains a model of yours: train --model SOURCE --dataset SOURCE ...")
    device = usable_device(request.device)
    recipe = _recipe(own, request)
    data = _Data.open(own, recipe, request, device=device)
    data.check(recipe)
    recipe = recipe.model_copy(update=data.digests)
    with _naming(recipe.model):
        built = _build(own, recipe, data.dataset)
        network = TrainedNetwork.of(built.classifier, arithmetic=recipe.arithmetic)
        _check_labels(built, data)
        known = {
            "weights_digest": _weights_digest(recipe.model),
            "model_probe": probe_network(network, data.dataset.input_shape),
        }
    recipe = recipe.model_copy(update=known)
    prepared = _Prepared(own, recipe, request, data, built, network)
    return train_once(
        request.output,
        recipe.model.name,
        finished=prepared.finished,
        train=lambda: prepared.train(device),
    )


@dataclass(frozen=True)
class _Prepared:
    """A training whose model and data are checked."""

    own: OwnTraining
    recipe: OwnRecipe
    request: TrainingRequest
    data: _Data
    built: BuiltModel
    network: TrainedNetwork

    @property
    def files(self) -> tuple[Path, Path]:
        """The weights file and the card."""
        folder, name = self.request.output, self.recipe.model.name
        return folder / f"{name}.safetensors", folder / f"{name}.json"

    def finished(self) -> TrainingResult | None:
        """Returns the finished training in the folder, whose weights the caller's module gets.

        None if there is none, or if it is to be made anew.
        """
        weights, card_path = self.files
        if self.request.fresh:
            return None
        there = _finished(card_path, weights, self.recipe)
        if there is None:
            return None
        if self.own.module is not None:
            _load(self.own.module, weights)
        return TrainingResult(
            weights, card_path, f"{there.summary()}; it was there already", there.notes
        )

    def train(self, device: torch.device) -> TrainingResult:
        """Trains the model and writes its files."""
        recipe, request, network, data = self.recipe, self.request, self.network, self.data
        weights, card_path = self.files
        name = recipe.model.name
        if request.fresh:
            _remove_checkpoints(request.output, name)
        report = _Report(request.report)
        with _naming(recipe.model, report), put_back(network.whole):
            network.whole.to(device)
            network.try_training(data.sample(TRIED))
            start = self.start()
            faults: list[str] = []
            monitor = _monitor(request, recipe, network, faults.append)
            task = OwnTask(recipe, network, start, data.examples, data.validation, monitor)
            trained = carry_out(task, stem=str(request.output / name), report=report)
            card = _store(task, trained, self.built, data, device=device, weights=weights)
            if monitor is not None:
                monitor.end(final_figures(card), epochs=recipe.epochs)
        write_own_card(card_path, card)
        _remove_checkpoints(request.output, name)
        return TrainingResult(weights, card_path, card.summary(), (*card.notes, *faults))

    def start(self) -> Weights:
        """Returns the tensors that training starts from.

        Those of an interrupted training that starts from them once more are kept in a file until
        it has ended: the caller's module may hold others when the call is made again.
        """
        tensors = {key: value.clone() for key, value in _tensors(self.network.module).items()}
        stopping, folder, name = self.recipe.stopping, self.request.output, self.recipe.model.name
        if stopping is None or stopping.second != "again":
            return tensors
        *checkpoints, kept = _checkpoints(folder, name)
        if kept.exists() and any(path.exists() for path in checkpoints):
            return read_weights(kept)
        write_in_folder(kept, save(_stored(tensors)))
        return tensors


def final_figures(card: OwnCard) -> dict[str, float | None]:
    """Returns the figures of a card that TensorBoard compares recipes by."""
    figures = card.figures
    return {
        "adversarial error, PGD": figures.pgd_error,
        "clean error": figures.clean_error,
        "confidence, clean": figures.clean_confidence,
        "confidence, FGSM": figures.fgsm_confidence,
        "confidence, PGD": figures.pgd_confidence,
        "error, FGSM": figures.fgsm_error,
        "best epoch": None if card.epochs is None else float(card.epochs),
        "seconds": card.seconds,
    }


def _monitor(
    request: TrainingRequest,
    recipe: OwnRecipe,
    network: TrainedNetwork,
    failed: Callable[[str], None],
) -> MonitorSettings | None:
    if request.tensorboard is None:
        return None
    fields = recipe.model_dump(exclude={*FILLED_IN, "objective"})
    fields["objective"] = recipe.objective.taken()
    monitor = MonitorSettings(
        request.output / request.tensorboard,
        request.output / recipe.model.name,
        f"{recipe.model.name}, seed {recipe.seed}",
        fields,
        objective_threat(network, recipe.objective),
        "pgd",
        failed,
    )
    monitor.begin()
    return monitor


def _recipe(own: OwnTraining, request: TrainingRequest) -> OwnRecipe:
    given: dict[str, Any] = {
        "model": own.model,
        "dataset": own.dataset,
        "validation": own.validation,
    }
    counts = {"seed": request.seed, "epochs": request.epochs}
    given |= own.settings
    given |= {key: value for key, value in counts.items() if value is not None}
    settings = {key: value for key, value in given.items() if value is not None}
    return own_recipe(settings, file=request.recipe)


@dataclass(frozen=True)
class _Data:
    """The data of a training."""

    dataset: Dataset
    examples: ExampleFeed
    validation_set: Dataset | None
    validation: ExampleFeed | None
    notes: tuple[str, ...]

    @classmethod
    def open(
        cls, own: OwnTraining, recipe: OwnRecipe, request: TrainingRequest, *, device: torch.device
    ) -> _Data:
        """Opens and checks the datasets.  Raises `DatasetError`."""
        dataset, examples, notes = _opened(recipe.dataset, own.data, request, device=device)
        varied = recipe.augmentation.flip or recipe.augmentation.shift
        if varied and len(dataset.input_shape) != 3:
            raise SpecError(
                "flip and shift are for pictures, of shape (channels, height, width); the inputs "
                f"have shape {dataset.input_shape}",
                where="recipe: augmentation",
            )
        if varied and recipe.augmentation.shift >= min(dataset.input_shape[1:]):
            raise SpecError(
                f"a shift by {recipe.augmentation.shift} pixels can move the whole picture away: "
                f"the inputs have shape {dataset.input_shape}",
                where="recipe: augmentation.shift",
            )
        if recipe.validation is None:
            return cls(dataset, examples, None, None, notes)
        other, unseen, more = _opened(
            recipe.validation, own.validation_data, request, device=device
        )
        if other.digest == dataset.digest:
            raise SpecError(
                "the validation examples are the training examples: leave validation out, and some "
                "are held out",
                where="--validation",
            )
        _check_alike(dataset, other)
        return cls(dataset, examples, other, unseen, (*notes, *more))

    @property
    def digests(self) -> dict[str, str]:
        other = self.validation_set
        return {
            "dataset_digest": self.dataset.digest,
            "validation_digest": "" if other is None else other.digest,
        }

    def check(self, recipe: OwnRecipe) -> None:
        """Raises `DatasetError` if the examples have no classes, or those held out only one."""
        for dataset in (self.dataset, self.validation_set):
            if dataset is not None and dataset.info.no_class:
                raise _without_classes(dataset.name)
        stopping = recipe.stopping_of(len(self.examples))
        if stopping is None or self.validation is not None or stopping.split != "last":
            return
        labels = self.dataset.labels
        unseen = np.unique(labels[-stopping.held_out :])
        if len(unseen) == 1 and len(np.unique(labels)) > 1:
            raise SpecError(
                f"the last {stopping.held_out} examples are all of class {unseen[0]}: hold out "
                'examples of a shuffle, split = "shuffled", or give validation',
                where="recipe: stopping.split",
            )

    def sample(self, count: int) -> Tensor:
        """Returns a few inputs."""
        chunk = torch.arange(min(count, len(self.examples)))
        return next(self.examples.feed([chunk]))[0]


def _without_classes(name: str) -> DatasetError:
    return DatasetError(f"dataset {name!r} has inputs of no class: training needs labels")


def _opened(
    spec: DatasetSpec, data: object, request: TrainingRequest, *, device: torch.device
) -> tuple[Dataset, ExampleFeed, tuple[str, ...]]:
    """Returns a dataset, its examples that can be read, and notes."""
    split = spec.split
    if spec.source.startswith(RUBBISH):
        raise _without_classes(spec.name)
    asked = DataRequest(split, workers=request.decoders)
    if request.data_dir is not None:
        asked = replace(asked, folder=request.data_dir)
    if data is not None:
        dataset = adopt_data(data, name=spec.name, bounds=bounds_of(spec))
    else:
        dataset = open_dataset(spec, asked)
    ids = np.arange(len(dataset), dtype=np.int64)
    bad = dataset.unreadable(ids, progress=lambda count: None)
    if bad and not spec.skip_unreadable:
        first = "".join(f"\n  {text}" for text in list(bad.values())[:NAMED])
        raise DatasetError(
            f"dataset {spec.name!r}: {len(bad)} examples can't be read; mend or remove them, or "
            f"leave them out with --skip-unreadable:{first}"
        )
    if len(bad) == len(ids):
        raise DatasetError(f"dataset {spec.name!r}: no example can be read")
    notes = [f"dataset {spec.name!r}: {note}" for note in dataset.notes]
    notes += [f"left out, since it can't be read: {text}" for text in bad.values()]
    return dataset, StoredExamples.of(dataset, device=device, without=list(bad)), tuple(notes)


def _check_alike(dataset: Dataset, other: Dataset) -> None:
    """Raises `DatasetError` if validation examples are not of the training examples' kind."""
    for what, expected, came in (
        ("inputs of shape", dataset.input_shape, other.input_shape),
        ("bounds", dataset.bounds, other.bounds),
    ):
        if expected != came:
            raise DatasetError(
                f"dataset {dataset.name!r} has {what} {expected}, the validation dataset "
                f"{other.name!r} has {came}"
            )
    if not (dataset.partial or other.partial) and dataset.classes != other.classes:
        missing = sorted({*dataset.classes} ^ {*other.classes})
        fault = f"only one of them has {', '.join(missing)}" if missing else "their order differs"
        raise DatasetError(
            f"datasets {dataset.name!r} and {other.name!r} must have equal classes, since labels "
            f"are positions among them: {fault}; give both the same class map"
        )


def _build(own: OwnTraining, recipe: OwnRecipe, dataset: Dataset) -> BuiltModel:
    spec, shape, bounds = recipe.model, dataset.input_shape, dataset.bounds
    if spec.ensemble:
        raise ModelError("an ensemble is not trained as one model: train its members")
    if own.module is not None:
        return adopt_model(own.module, spec=spec, input_shape=shape, bounds=bounds)
    check_model(spec, where="")
    seed = derive_key(recipe.seed, "start")
    return build_model(spec, input_shape=shape, bounds=bounds, seed=seed)


def _weights_digest(spec: ModelSpec) -> str:
    """Returns the digest of the weights file that a model starts from, if it is a file."""
    file = None if spec.weights is None else Path(spec.weights)
    return file_digest(file) if file is not None and file.is_file() else ""


def _check_labels(built: BuiltModel, data: _Data) -> None:
    classifier = built.classifier
    if classifier.input_shape != data.dataset.input_shape:
        raise ModelError(
            f"it takes inputs of shape {classifier.input_shape}, dataset {data.dataset.name!r} has "
            f"{data.dataset.input_shape}"
        )
    for dataset in (data.dataset, data.validation_set):
        if dataset is None:
            continue
        highest = int(dataset.labels.max())
        if highest >= classifier.classes:
            raise ModelError(
                f"it has {classifier.classes} outputs, dataset {dataset.name!r} has labels up to "
                f"{highest}: give the model an output for each class"
            )
        if not dataset.partial and classifier.classes != len(dataset.classes):
            raise ModelError(
                f"it has {classifier.classes} outputs, dataset {dataset.name!r} has "
                f"{len(dataset.classes)} classes"
            )


def _store(
    task: OwnTask,
    trained: Trained[nn.Module],
    built: BuiltModel,
    data: _Data,
    *,
    device: torch.device,
    weights: Path,
) -> OwnCard:
    """Writes the weights, and returns the card with the figures of what the file holds."""
    recipe, network = task.recipe, task.network
    stored = save(_stored(_tensors(trained.module)), metadata={"model": recipe.model.name})
    write_in_folder(weights, stored)
    trained.module.load_state_dict(read_weights(weights))
    stopping = task.stopping
    if stopping is None:
        examples, words = task.examples, "training examples (none were held out)"
    else:
        _, examples = task.divide(stopping)
        held = "held-out training" if task.validation is None else "validation"
        trained_on = ", trained on too" if stopping.second != "none" else ""
        words = f"{held} examples{trained_on}"
    threat = objective_threat(network, recipe.objective)
    figures = measure_network(
        network, examples, threat, steps=CARD_STEPS, batch_size=recipe.batch_size
    )
    noted = [f"epoch {record.epoch}: {record.note}" for record in trained.history if record.note]
    noted = _first_and_count(noted)
    long_enough = len(trained.history) > 1  # else the network has hardly been trained
    if recipe.objective.name != "standard" and long_enough and not noted:
        noted = [overfitting_note(figures, on=words)]
    noted = [threat.width_note, *noted, guessing_note(figures, on=words)]
    return OwnCard(
        model=recipe.model.name,
        sha256=file_digest(weights),
        recipe=recipe,
        parameters=sum(p.numel() for p in trained.module.parameters() if p.requires_grad),
        versions={
            "python": platform.python_version(),
            "torch": str(torch.__version__),
            "numpy": np.__version__,
        },
        device=device_name(device),
        threads=torch.get_num_threads(),
        seconds=round(trained.seconds, 1),
        measured_on=f"{figures.examples:,} {words}",
        figures=figures,
        epochs=trained.epochs,
        watched=trained.watched,
        notes=(*built.notes, *data.notes, *filter(None, noted)),
    )


def _first_and_count(notes: list[str]) -> list[str]:
    """Returns the first of the notes on epochs, and how many followed."""
    if len(notes) < 2:
        return notes
    return [f"{notes[0]} (and {len(notes) - 1} later epochs)"]


def _stored(tensors: Weights) -> dict[str, Tensor]:
    """Returns tensors as a file holds them: on the processor, each with storage of its own."""
    return {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    """Returns a module's state by name.  Raises `ModelError` if it holds anything but tensors."""
    state = module.state_dict()
    for key, value in state.items():
        if not isinstance(value, Tensor):
            raise ModelError(
                f"its state holds {key!r}, of type {type(value).__name__}: a weights file holds "
                "tensors alone"
            )
    return dict(state)


def _finished(card_path: Path, weights: Path, recipe: OwnRecipe) -> OwnCard | None:
    """Returns the card of the finished training in a folder, or None if it holds no complete one.

    Raises `RunFolderError` if it is of another recipe.
    """
    try:
        card = read_own_card(card_path)
        if file_digest(weights) != card.sha256:
            return None
    except WeightsError:
        if weights.exists() and card_path.exists():
            raise RunFolderError(
                f"{card_path}: not the card of a training of your own model; choose another folder "
                "(--output), or start fresh (--fresh), which replaces it"
            ) from None
        return None
    differences = card.recipe.differences(recipe)
    if differences:
        raise RunFolderError(
            f"{weights}: holds a finished training by another recipe: {'; '.join(differences)}; "
            "choose another folder (--output) or start fresh (--fresh), which replaces it"
        )
    return card


def _load(module: nn.Module | Classifier, weights: Path) -> None:
    """Loads the weights of a finished training into the caller's module."""
    inner = module.module if isinstance(module, Classifier) else module
    try:
        inner.load_state_dict(read_weights(weights))
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise RunFolderError(
            f"{weights}: holds a finished training of another network ({reason}); choose another "
            "folder, or start fresh, which replaces it"
        ) from error


def _checkpoints(folder: Path, name: str) -> tuple[Path, Path, Path]:
    """Returns the checkpoints of both parts, and the file of the tensors that both start from."""
    parts = ("search.checkpoint.pt", "checkpoint.pt", "start.safetensors")
    search, last, start = (folder / f"{name}.{part}" for part in parts)
    return search, last, start


def _remove_checkpoints(folder: Path, name: str) -> None:
    for path in _checkpoints(folder, name):
        path.unlink(missing_ok=True)


class _Report:
    """Passes the progress of a training on, and remembers the exception of who gets it."""

    def __init__(self, report: Callable[[TrainingProgress], None]) -> None:
        self.report = report
        self.raised: BaseException | None = None

    def __call__(self, progress: TrainingProgress) -> None:
        """Passes the progress on."""
        try:
            self.report(progress)
        except BaseException as error:
            self.raised = error
            raise


@contextmanager
def _naming(spec: ModelSpec, report: _Report | None = None) -> Iterator[None]:
    """Names the model in errors of a ``with`` block, and in exceptions that its code raises.

    Those of ``report`` are nobody's fault here.
    """
    try:
        yield
    except ModelError as error:
        raise ModelError(f"model {spec.name!r}: {error}") from error
    except BaseException as error:
        ours = raised_within(error, OURS, Path(__file__).parent)
        if ours or (report is not None and error is report.raised):
            raise
        with their_code(f"model {spec.name!r}: its code failed", kind=ModelError):
            raise
