"""Building, training and publishing the zoo's models: what the catalogue's entries lead to."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from benchmark.classifier import Classifier
from benchmark.datasets import DATASETS, DataRequest
from benchmark.errors import DeviceError
from benchmark.models import TrainingRequest, TrainingResult
from benchmark.threat import Epsilon
from benchmark.weights import file_digest, load_weights
from model_zoo.architecture import Architecture
from model_zoo.atomic import write_atomically
from model_zoo.card import Card, Training, read_card, write_card
from model_zoo.catalogue import WEIGHTS
from model_zoo.logistic import Logistic
from model_zoo.maxout import Maxout
from model_zoo.measurement import measure
from model_zoo.rbf import Rbf
from model_zoo.recipe import Recipe, shipped_recipe
from model_zoo.softmax import Softmax
from model_zoo.training import fit

EPSILON = Epsilon.parse("0.25")  # of the cards' figures: the paper's budget on MNIST
DTYPES = {"float32": torch.float32, "float16": torch.float16}
ARCHITECTURES: dict[str, type[Architecture]] = {
    "softmax": Softmax,
    "logistic": Logistic,
    "maxout": Maxout,
    "rbf": Rbf,
}
IMAGE = (1, 28, 28)


@dataclass(frozen=True)
class _Examples:
    inputs: Tensor
    labels: Tensor


def build(name: str, weights: Path | None = None) -> Classifier:
    """Returns a model of the zoo with its shipped weights, or with those of another file.

    Raises `UnknownNameError`, or `WeightsError` where the file does not fit.
    """
    recipe = shipped_recipe(name)
    classifier = _classifier(ARCHITECTURES[recipe.architecture]())
    path = WEIGHTS / f"{name}.safetensors" if weights is None else weights
    load_weights(classifier.module, path)
    return classifier


def train(name: str, request: TrainingRequest) -> TrainingResult:
    """Trains a model by its shipped recipe and writes weights and card to the request's folder.

    While it lasts, a checkpoint lies beside them, from which the same request goes on.  Raises
    `SpecError`, `DeviceError`, `DatasetError`, `RunFolderError`, and `WeightsError` where the
    checkpoint is damaged.
    """
    recipe = shipped_recipe(name).override(seed=request.seed, epochs=request.epochs)
    device = _device(request.device)
    weights = request.output / f"{name}.safetensors"
    checkpoint = request.output / f"{name}.checkpoint.pt"
    if request.fresh:
        checkpoint.unlink(missing_ok=True)

    module = ARCHITECTURES[recipe.architecture]().to(device)
    examples = _load(recipe, "train", device)
    seconds = fit(
        module,
        recipe,
        inputs=examples.inputs,
        labels=examples.labels,
        checkpoint=checkpoint,
        report=request.report,
    )
    dtype = DTYPES[recipe.dtype]
    stored = {key: value.to("cpu", dtype) for key, value in module.state_dict().items()}
    write_atomically(weights, save(stored, metadata={"model": name}))

    # Measured as it will be used: read back from the file, rounding included.
    classifier = _classifier(ARCHITECTURES[recipe.architecture]())
    load_weights(classifier.module, weights)
    test = _load(recipe, "test", torch.device("cpu"))
    figures = measure(classifier, inputs=test.inputs, labels=test.labels, epsilon=float(EPSILON))
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
        device=_device_name(device),
        threads=torch.get_num_threads(),
        epsilon=str(EPSILON),
        training=Training(seed=recipe.seed, seconds=round(seconds, 1), figures=figures),
    )
    card_path = request.output / f"{name}.json"
    write_card(card_path, card)
    checkpoint.unlink(missing_ok=True)
    summary = (
        f"{name}: clean error {100 * figures.clean_error:.2f} %, "
        f"FGSM error {100 * figures.fgsm_error:.2f} % at epsilon {EPSILON}"
    )
    return TrainingResult(weights, card_path, summary)


def publish(name: str, folders: Sequence[Path], *, destination: Path = WEIGHTS) -> Card:
    """Ships the weights that were trained in the first folder, with all folders on the card.

    The folders hold trainings of one recipe with different seeds.  Returns the card written.
    Raises `WeightsError` where they don't belong together.
    """
    cards = [read_card(folder / f"{name}.json") for folder in folders]
    card = cards[0].beside(cards[1:])
    weights = folders[0] / f"{name}.safetensors"
    write_atomically(destination / weights.name, weights.read_bytes())
    write_card(destination / f"{name}.json", card)
    return card


def _classifier(module: Architecture) -> Classifier:
    with torch.no_grad():
        classes = module(torch.zeros(1, *IMAGE)).shape[1]
    return Classifier(module, classes=classes, input_shape=IMAGE, outputs=module.outputs)


def _load(recipe: Recipe, split: Literal["train", "test"], device: torch.device) -> _Examples:
    dataset = DATASETS.load(recipe.dataset)(DataRequest(split=split))
    batch = dataset.batch(np.arange(len(dataset), dtype=np.int64)).to(device)
    return _Examples(batch.inputs, batch.labels)


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        raise DeviceError(f"device {name!r} can't be used: {reason}") from error
    return device


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
