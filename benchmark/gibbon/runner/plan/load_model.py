"""From a spec to a model that was seen to do what it declares, and what its results go under."""

from __future__ import annotations

import hashlib
import math
import uuid
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gibbon.core.errors import ModelError
from gibbon.core.registry import their_code
from gibbon.core.rng import ExampleStreams, derive_key
from gibbon.datasets.base import Batch, Dataset, sample_ids
from gibbon.models.classifier import Classifier, probe
from gibbon.models.memory import in_pieces, kept_bytes, state_bytes
from gibbon.models.sources import BuiltModel
from gibbon.models.sources.build import build_model
from gibbon.models.sources.wrap_module import same_random_numbers
from gibbon.models.weights import state_digest
from gibbon.records.run import ModelCard
from gibbon.runner.model_pool import COPIES, Handle
from gibbon.runner.plan.code_digest import PACKAGE, code_digest, digest_of
from gibbon.runner.plan.precision import uncompiled, vary
from gibbon.runner.settings import Precision
from gibbon.specs.suite import ModelSpec

PROBE_SIZE = 256
PROBE_NUMBERS = PROBE_SIZE * 3 * 32 * 32  # of larger pictures than these a probe holds fewer
SMALLEST_PROBE = 16
PROBE_DIGITS = 4  # of the probe's means: far coarser than the rounding of another device or batch
PROBE_STEADY = 1e-4  # of the largest output: what a GPU's sums may differ by from call to call
PROBE_NOISE = 0.1  # how far the probe goes from the data, as a share of the bounds
DRAWS = 4  # of a model that answers at random: what it does seldom may not show in the first
MEASURED_EXAMPLES = 2  # enough to tell what each needs from what the batch needs
UNREADABLE = (
    "it answers at random and its code can't be read (typed into a console or a notebook, or "
    "changed since it was imported), so that its results are never taken from an earlier run"
)
NO_GRADIENT = "its outputs have no gradient in its inputs"


@dataclass(frozen=True)
class LoadedModel:
    """A model of an experiment, ready to be evaluated, and what its results are filed under.

    ``steady``: it answers the same inputs alike each time; ``repeats``: it does so where random
    numbers start from the same seed.  ``forward_only`` says why there are no gradients, and is
    empty where there are.  ``kept`` are the bytes that a backward pass needs for an example.
    """

    name: str
    handle: Handle
    digest: str
    card: ModelCard
    steady: bool
    repeats: bool = True
    forward_only: str = ""
    kept: int = 0

    @property
    def classifier(self) -> Classifier:
        """The classifier, made again if it was let go."""
        return self.handle.classifier


@dataclass(frozen=True)
class Variant:
    """How a model is computed: see `RunSettings`."""

    precision: Precision = "float32"
    compiled: bool = False


def probe_ids(dataset: Dataset, *, unreadable: NDArray[np.int64]) -> NDArray[np.int64]:
    """Returns the ids of the examples that models are probed on."""
    fitting = PROBE_NUMBERS // max(1, math.prod(dataset.input_shape))
    size = min(PROBE_SIZE, max(SMALLEST_PROBE, fitting))
    ids = sample_ids(dataset, size)
    return ids[~np.isin(ids, unreadable)]


def load_model(
    spec: ModelSpec,
    *,
    dataset: Dataset,
    sample: Batch,
    device: torch.device,
    variant: Variant,
    given: BuiltModel | None = None,
) -> LoadedModel:
    """Returns a model that was seen to do what it declares, on a sample of this dataset.

    ``given`` stands before what the spec says of where the model comes from.

    Raises `ModelError` where it does not fit the dataset or breaks its declaration, and
    `WeightsError` where its weights can't be had.
    """

    def build() -> tuple[BuiltModel, Classifier]:
        built = given
        if built is None:
            built = build_model(spec, input_shape=dataset.input_shape)
        return built, vary(built.classifier, precision=variant.precision, compiled=variant.compiled)

    built, classifier = build()
    own = built.classifier.module
    _check_fit(classifier, dataset)
    batch = sample.to(device)
    with their_code("the model can't be run"), classifier.evaluating(device):
        outputs = _probed(classifier, batch.inputs)
        again = _probed(classifier, batch.inputs)
        steady = bool((again - outputs).abs().max() <= PROBE_STEADY * outputs.abs().max())
        draws = "" if steady else _draws(classifier, batch.inputs)
        with nullcontext() if steady else same_random_numbers(device):
            gradient_free, between = _between_pixels(classifier, batch)
        kept = _measured(classifier, batch.inputs)
        means = [
            f"{float(value):.{PROBE_DIGITS}g}"
            for value in (
                classifier.outputs.confidence(outputs).mean(),
                outputs.abs().mean(),
                *between,
            )
        ]
    weights = state_digest(own)
    settings = None if steady else _settings(own)
    other = {} if variant.precision == "float32" else {"precision": variant.precision}
    digest = digest_of(
        model=built.identity,
        weights=weights,
        outputs=classifier.outputs.name,
        bounds=[classifier.bounds.low, classifier.bounds.high],
        # A model that answers at random would be another one every time: its draws stand for it.
        predictions=outputs.argmax(1).tolist() if steady else [],
        means=means if steady else [],
        **({} if settings is None else _drawn(settings, draws, means[2:])),
        **other,
    )
    card = ModelCard(
        name=spec.name,
        model=spec.model,
        weights_digest=weights,
        digest=digest,
        outputs=classifier.outputs.name,
        classes=classifier.classes,
        parameters=sum(parameter.numel() for parameter in own.parameters()),
        notes=(
            *built.notes,
            *(("computed in bfloat16",) if other else ()),
            *((UNREADABLE,) if settings is not None and settings.code is None else ()),
        ),
    )
    reason = classifier.forward_only or (NO_GRADIENT if gradient_free else "")
    rebuild = _again(build, weights) if given is None and built.rebuilds else None
    handle = Handle(classifier, size=COPIES * state_bytes(own), rebuild=rebuild)
    return LoadedModel(spec.name, handle, digest, card, steady, steady or bool(draws), reason, kept)


def _again(
    build: Callable[[], tuple[BuiltModel, Classifier]], weights: str
) -> Callable[[], Classifier]:
    def rebuilt() -> Classifier:
        built, classifier = build()
        if state_digest(built.classifier.module) != weights:
            raise ModelError(
                "built again it has other weights: its factory is random, or its file changed; "
                "give --models-in-memory a number that holds all models"
            )
        return classifier

    return rebuilt


def _measured(classifier: Classifier, inputs: Tensor) -> int:
    """Returns how many bytes an example needs in a backward pass."""
    if classifier.forward_only:
        return 0
    return kept_bytes(uncompiled(classifier.module), inputs[:MEASURED_EXAMPLES])


def _probed(classifier: Classifier, inputs: Tensor) -> Tensor:
    pieces = in_pieces(
        lambda part: probe(classifier, inputs[part]), len(inputs), device=inputs.device
    )
    return torch.cat([each.cpu() for each in pieces]).double()


def _drawn(settings: _Settings, draws: str, between: list[str]) -> dict[str, object]:
    """Returns what stands for the answers of a model that answers at random.

    If its draws can't be made again or its code can't be read, no other run has the same.
    """
    return {
        "draws": draws or uuid.uuid4().hex,
        "between": between,
        "settings": settings.held,
        "code": settings.code or uuid.uuid4().hex,
    }


def _draws(classifier: Classifier, inputs: Tensor) -> str:
    """Returns a digest of what the model answers where its random numbers start from a fixed seed.

    Of every bit: two models that differ in how strong their noise is may answer almost alike.
    Empty where it answers differently all the same: its random numbers are of another kind, such
    as the system's, or of a generator that it keeps.
    """

    def drawn() -> list[bytes]:
        with same_random_numbers(inputs.device):
            return [_probed(classifier, inputs).numpy().tobytes() for _ in range(DRAWS)]

    first = drawn()
    return hashlib.sha256(b"".join(first)).hexdigest() if drawn() == first else ""


@dataclass(frozen=True)
class _Settings:
    """A digest of the code of a model's parts, None if unreadable, and the numbers they hold."""

    code: str | None
    held: list[object]


def _settings(module: nn.Module) -> _Settings:
    """Returns the code of a model's parts, and the numbers and words that they hold.

    Whether they train is left out.
    """
    parts = list(module.named_modules())
    kinds = {type(part) for _, part in parts if not _is_library(type(part))}
    held: list[object] = [
        [
            name,
            type(part).__qualname__,
            {
                key: repr(value)
                for key, value in vars(part).items()
                if isinstance(value, bool | int | float | str) and key != "training"
            },
        ]
        for name, part in parts
    ]
    return _Settings(code_digest(kinds), held)


def _is_library(kind: type) -> bool:
    return kind.__module__.partition(".")[0] in ("torch", PACKAGE)


def _between_pixels(classifier: Classifier, batch: Batch) -> tuple[bool, tuple[Tensor, Tensor]]:
    """Returns what the model does off the grid of the data: its mean output, and mean gradient.

    And before them whether it has no gradient; the mean is NaN then.  It can still be attacked by
    what needs none.  A step in front of the model that rounds inputs to pixel values, say, changes
    nothing on the data itself and everything for an attack.
    """
    key = derive_key("gibbon", "the probe between pixels")
    noise = ExampleStreams.derive(key, batch.ids).uniform(batch.inputs.shape[1:])
    bounds = classifier.bounds
    nearby = batch.inputs + (noise - 0.5) * (PROBE_NOISE * bounds.width)
    nearby = nearby.clamp_(bounds.low, bounds.high)
    gradients: dict[int, Tensor] = {}

    def run(part: slice) -> Tensor:
        leaf = nearby[part].detach().requires_grad_()
        with torch.enable_grad():
            outputs = classifier(leaf)
        if outputs.requires_grad:
            ascent = classifier.outputs.ascent(outputs.detach(), batch.labels[part])
            (gradients[part.start],) = torch.autograd.grad(outputs, leaf, ascent)
        return outputs.detach()

    outputs = torch.cat(in_pieces(run, len(nearby), device=nearby.device))
    mean = outputs.cpu().double().abs().mean()
    if not gradients:
        return True, (mean, torch.tensor(torch.nan))
    found = torch.cat([gradients[start] for start in sorted(gradients)])
    return False, (mean, found.cpu().double().abs().mean())


def _check_fit(classifier: Classifier, dataset: Dataset) -> None:
    if dataset.partial:
        _check_labels(classifier, dataset)
    elif classifier.classes != len(dataset.classes):
        raise ModelError(
            f"it has {classifier.classes} classes, dataset {dataset.name!r} has "
            f"{len(dataset.classes)}: if they are some of the model's, say which, with a class map "
            "for pictures in files or a target_transform for a torch dataset"
        )
    if classifier.input_shape != dataset.input_shape:
        raise ModelError(
            f"it takes inputs of shape {classifier.input_shape}, "
            f"dataset {dataset.name!r} has {dataset.input_shape}"
        )
    if classifier.bounds != dataset.bounds:
        raise ModelError(
            f"it takes inputs in [{classifier.bounds.low}, {classifier.bounds.high}], dataset "
            f"{dataset.name!r} has them in [{dataset.bounds.low}, {dataset.bounds.high}]"
        )


def _check_labels(classifier: Classifier, dataset: Dataset) -> None:
    beyond = np.flatnonzero(dataset.labels >= classifier.classes)
    if len(beyond) > 0:
        first = int(beyond[0])
        raise ModelError(
            f"it has {classifier.classes} classes, so that labels go from 0 to "
            f"{classifier.classes - 1}; dataset {dataset.name!r} has a label "
            f"{dataset.labels[first]} (example {first}): give the dataset a class map, or labels "
            "counted from 0"
        )
