"""Builds, trains and publishes the zoo's models."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save

from gibbon.core.errors import RunFolderError, SpecError, WeightsError
from gibbon.core.registry import lazily
from gibbon.core.threat import Epsilon, Norm, ThreatModel
from gibbon.datasets import DATASETS, DataRequest, Split
from gibbon.datasets.base import Batch
from gibbon.models.classifier import Classifier
from gibbon.models.ensemble import ensemble
from gibbon.models.registry import TrainingRequest, TrainingResult
from gibbon.models.weights import file_digest, load_weights
from gibbon_zoo.architecture import Architecture
from gibbon_zoo.atomic import write_in_folder
from gibbon_zoo.card import Card, Training, read_card, write_card
from gibbon_zoo.catalogue import ARCHITECTURES
from gibbon_zoo.devices import device_name, usable_device
from gibbon_zoo.measurement import clean_error, measure
from gibbon_zoo.monitor_settings import MonitorSettings
from gibbon_zoo.procedure import report_of_part, train_network
from gibbon_zoo.recipe import TEXTS, Recipe, read_recipe, shipped_recipe
from gibbon_zoo.training_lock import train_once
from gibbon_zoo.weights_folder import WEIGHTS

EPSILON = Epsilon.parse("0.25")  # of the cards' figures: the paper's budget on MNIST
WHITENED = Epsilon.parse("0.1")  # its budget on whitened CIFAR-10
EPSILONS = {"cifar10-whitened": WHITENED, "cifar10-jpeg-whitened": WHITENED}
DTYPES = {"float32": torch.float32, "float16": torch.float16}


def build(name: str, weights: Path | None = None) -> Classifier:
    """Returns a model of the zoo with its shipped weights, or with those of another file.

    Raises `UnknownNameError`, or `WeightsError` if the file does not fit, or none is given for a
    model whose weights are not shipped.
    """
    recipe = shipped_recipe(name)
    classifier = _classifier(recipe)
    path = WEIGHTS / f"{name}.safetensors" if weights is None else weights
    if weights is None and not path.exists():
        raise WeightsError(
            f"{name}: its weights don't come with Gibbon; train it "
            f"(run_benchmark.py train {name} --output DIR) and give the file that this writes as "
            f"the model's weights: DIR/{name}.safetensors"
        )
    load_weights(classifier.module, path)
    return classifier


def train(name: str, request: TrainingRequest) -> TrainingResult:
    """Trains a model by its recipe and writes weights, card and log to the request's folder.

    During training, checkpoints lie beside them, from which an equal request resumes.  A finished
    training is not repeated.  Raises `SpecError`, `DeviceError`, `DatasetError`, `RunFolderError`,
    also if the folder holds a training by another recipe or seed, or another process trains this
    model there, and `WeightsError` if a checkpoint is damaged.
    """
    recipe = _recipe(name, request.recipe).override(seed=request.seed, epochs=request.epochs)
    device = usable_device(request.device)
    return train_once(
        request.output,
        name,
        finished=lambda: None if request.fresh else _finished(name, request.output, recipe),
        train=lambda: _train(name, request, recipe, device),
    )


def _train(
    name: str, request: TrainingRequest, recipe: Recipe, device: torch.device
) -> TrainingResult:
    """Trains a model and writes its files; the folder is locked."""
    weights, card_path = _files(name, request.output)
    stem = str(request.output / name)  # of the names of its checkpoints
    if request.fresh:
        _remove_checkpoints(request.output, name)
    examples = _load(recipe, "train", device, data_dir=request.data_dir)
    epsilon = EPSILONS.get(recipe.dataset, EPSILON)
    faults: list[str] = []
    monitor = _monitor(name, request, recipe, epsilon, faults.append)
    trained = [
        train_network(
            recipe.override(seed=recipe.seed * recipe.members + member),
            partial(architecture_of, recipe),
            examples,
            stem=f"{stem}.member-{member}" if recipe.members > 1 else stem,
            report=report_of_part(request.report, part=member, parts=recipe.members),
            monitor=_of_member(monitor, member) if recipe.members > 1 else monitor,
        )
        for member in range(recipe.members)
    ]
    module = _classifier(recipe, [each.module.cpu() for each in trained]).module
    dtype = DTYPES[recipe.dtype]
    stored = {key: value.to(dtype) for key, value in module.state_dict().items()}
    write_in_folder(weights, save(stored, metadata={"model": name}))

    # Measured as it will be used: read back from the file, rounding included.
    classifier = _classifier(recipe)
    load_weights(classifier.module, weights)
    test = _load(recipe, "test", torch.device("cpu"), data_dir=request.data_dir)
    figures = measure(classifier, inputs=test.inputs, labels=test.labels, epsilon=float(epsilon))
    card = Card(
        model=name,
        sha256=file_digest(weights),
        recipe=recipe,
        parameters=sum(tensor.numel() for tensor in stored.values()),
        versions={
            "python": platform.python_version(),
            "torch": str(torch.__version__),
            "numpy": np.__version__,
        },
        device=device_name(device),
        threads=torch.get_num_threads(),
        epsilon=str(epsilon),
        training=Training(
            seed=recipe.seed,
            seconds=round(sum(each.seconds for each in trained), 1),
            figures=figures,
            train_error=clean_error(
                classifier, inputs=examples.inputs.cpu(), labels=examples.labels.cpu()
            ),
            epochs=trained[0].epochs,
            watched=trained[0].watched,
            second_epochs=trained[0].second_epochs,
            target=trained[0].target,
            objective=trained[0].objective,
        ),
    )
    write_card(card_path, card)
    _remove_checkpoints(request.output, name)
    if monitor is not None:
        monitor.end(_final_figures(card), epochs=recipe.epochs)
    return TrainingResult(weights, card_path, _summary(card), tuple(faults))


def _monitor(
    name: str,
    request: TrainingRequest,
    recipe: Recipe,
    epsilon: Epsilon,
    failed: Callable[[str], None],
) -> MonitorSettings | None:
    """Returns what is written for TensorBoard, and writes the recipe; None if nothing is."""
    if request.tensorboard is None:
        return None
    monitor = MonitorSettings(
        request.output / request.tensorboard,
        request.output / name,
        f"{name}, seed {recipe.seed}",
        {"model": name, **recipe.model_dump(exclude={*TEXTS})},
        ThreatModel(Norm.LINF, epsilon, None),  # not clipped, as in the paper
        "fgsm",
        failed,
    )
    monitor.begin()
    return monitor


def _of_member(monitor: MonitorSettings | None, member: int) -> MonitorSettings | None:
    if monitor is None:
        return None
    return replace(monitor, folder=monitor.folder / f"member-{member}")


def _final_figures(card: Card) -> dict[str, float | None]:
    figures, training = card.training.figures, card.training
    return {
        "adversarial error, FGSM": figures.fgsm_error,
        "adversarial error, FGSM clipped": figures.fgsm_clipped_error,
        "adversarial error, FGSM naive": figures.fgsm_naive_error,
        "clean error": figures.clean_error,
        "confidence, FGSM": figures.fgsm_confidence,
        "training error": training.train_error,
        "best epoch": None if training.epochs is None else float(training.epochs),
        "seconds": training.seconds,
    }


def _recipe(name: str, file: Path | None) -> Recipe:
    """Returns the recipe in a file, or the shipped one, of a model with this name.

    Raises `SpecError` if the file's is of another network than the model of this name is, whose
    weights could not be loaded as that model's.
    """
    shipped = shipped_recipe(name)
    if file is None:
        return shipped
    recipe = read_recipe(file)
    for key in ("architecture", "sizes", "members"):
        expected, given = getattr(shipped, key), getattr(recipe, key)
        if given != expected:
            raise SpecError(
                f"{name} has {expected!r}, got {given!r}: its weights would not be those of {name}",
                where=f"{file}: {key}",
            )
    return recipe


def _files(name: str, folder: Path) -> tuple[Path, Path]:
    return folder / f"{name}.safetensors", folder / f"{name}.json"


def _finished(name: str, folder: Path, recipe: Recipe) -> TrainingResult | None:
    """Returns the finished training in a folder; None if it holds no complete one.

    Raises `RunFolderError` if it is of another recipe.
    """
    weights, card_path = _files(name, folder)
    try:
        card = read_card(card_path)
        if file_digest(weights) != card.sha256:
            return None
    except WeightsError:
        return None
    if card.with_texts_of(recipe).recipe != recipe:
        raise RunFolderError(
            f"{weights}: holds a finished training by another recipe, seed "
            f"({card.training.seed}) or number of epochs ({card.recipe.epochs}); choose "
            "another folder (--output) or start fresh (--fresh), which replaces it"
        )
    return TrainingResult(weights, card_path, f"{_summary(card)}; it was there already")


def _summary(card: Card) -> str:
    figures = card.training.figures
    return (
        f"{card.model}: clean error {100 * figures.clean_error:.2f} %, "
        f"FGSM error {100 * figures.fgsm_error:.2f} % at epsilon {card.epsilon}"
    )


def _remove_checkpoints(folder: Path, name: str) -> None:
    for path in folder.glob(f"{name}.*checkpoint.pt"):
        path.unlink(missing_ok=True)


def publish(
    name: str, folders: Sequence[Path], *, destination: Path = WEIGHTS, with_weights: bool = True
) -> Card:
    """Ships the weights that were trained in the first folder, with all folders on the card.

    The folders hold trainings of one recipe with different seeds; the card takes the texts of the
    shipped recipe, which may have been extended after the training.  Without weights only the card
    is shipped, as a record of the trainings.  Returns the card.  Raises `WeightsError` if the
    trainings don't belong together, or the weights are not those of the first card.
    """
    cards = [read_card(folder / f"{name}.json") for folder in folders]
    card = cards[0].with_other_seeds(cards[1:]).with_texts_of(shipped_recipe(name))
    weights = folders[0] / f"{name}.safetensors"
    if with_weights:
        if file_digest(weights) != card.sha256:
            raise WeightsError(f"{weights}: is not the file that its card is of; train it again")
        write_in_folder(destination / weights.name, weights.read_bytes())
    write_card(destination / f"{name}.json", card)
    return card


def architecture_of(recipe: Recipe) -> Architecture:
    """Returns an untrained network of a recipe.  Raises `SpecError` if its sizes don't fit."""
    architecture: type[Architecture] = lazily(ARCHITECTURES[recipe.architecture])()
    try:
        return architecture(**recipe.sizes)
    except TypeError as error:
        raise SpecError(
            f"{recipe.architecture} can't be built with {', '.join(recipe.sizes)}",
            where="recipe: sizes",
        ) from error


def _classifier(recipe: Recipe, members: Sequence[Architecture] = ()) -> Classifier:
    """Returns the model of a recipe: of these trained networks, or of untrained ones."""
    networks = members or [architecture_of(recipe) for _ in range(recipe.members)]
    classifiers = [network_classifier(network) for network in networks]
    # The paper does not say how its twelve networks are combined; the mean of the probabilities is
    # usual.
    return classifiers[0] if recipe.members == 1 else ensemble(classifiers, fuse="probabilities")


def network_classifier(network: Architecture) -> Classifier:
    """Returns the classifier of one network."""
    with torch.no_grad():
        classes = network(torch.zeros(1, *network.input_shape)).shape[1]
    return Classifier(
        network,
        classes=classes,
        input_shape=network.input_shape,
        outputs=network.outputs,
        bounds=network.bounds,
    )


def _load(recipe: Recipe, split: Split, device: torch.device, *, data_dir: Path | None) -> Batch:
    request = DataRequest(split) if data_dir is None else DataRequest(split, data_dir)
    dataset = DATASETS.load(recipe.dataset)(request)
    return dataset.batch(np.arange(len(dataset), dtype=np.int64)).to(device)
