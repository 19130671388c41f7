"""Builds the models of a plan, checks them on a sample, and derives their digests."""

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
from gibbon.runner.plan.cell_digest import digest_of
from gibbon.runner.plan.code_digest import PACKAGE, code_digest
from gibbon.runner.plan.precision import uncompiled, vary
from gibbon.runner.settings import Precision
from gibbon.specs.suite import ModelSpec

PROBE_SIZE = 256
PROBE_NUMBERS = PROBE_SIZE * 3 * 32 * 32  # at most; of larger pictures a probe holds fewer
SMALLEST_PROBE = 16
PROBE_DIGITS = 4  # of the probe's means: far coarser than the rounding of another device or batch
PROBE_STEADY = 1e-4  # share of the largest output by which a GPU's sums may differ between calls
PROBE_NOISE = 0.1  # distance of the probe from the data, as a share of the bounds
DRAWS = 4  # of a model that answers at random: rare behaviour may be missed by the first
MEASURED_EXAMPLES = 2  # enough to separate the need of each from that of the batch
UNREADABLE = (
    "it answers at random and its code can't be read (typed into a console or a notebook, or "
    "changed since it was imported), so that its results are never taken from an earlier run"
)
NO_GRADIENT = "its outputs have no gradient in its inputs"


@dataclass(frozen=True)
class ProbedAnswers:
    """The answers of a model to a sample of the dataset.

    Args:
        predictions: the predicted classes.
        means: rounded means: of the confidences, of the sizes of the outputs, and of the sizes of
            outputs and gradients off the grid of the data.
        steady: whether the model answers the same inputs alike each time.
        draws: digest of the outputs from a fixed seed; empty for a steady model, and for one whose
            outputs can't be repeated.
        forward_only: the reason why it has no gradients; empty if it has.
        kept: bytes that a backward pass needs for one example.
    """

    predictions: tuple[int, ...]
    means: tuple[str, ...]
    steady: bool
    draws: str
    forward_only: str
    kept: int


@dataclass(frozen=True)
class LoadedModel:
    """A model of an experiment, ready to be evaluated.

    Args:
        name: its name in the suite.
        handle: its classifier, which can be released and built again.
        digest: the name that it has in digests of cells.
        card: its record.
        probed: its answers to the sample.
    """

    name: str
    handle: Handle
    digest: str
    card: ModelCard
    probed: ProbedAnswers

    @property
    def classifier(self) -> Classifier:
        """The classifier, built again if it was released."""
        return self.handle.classifier


@dataclass(frozen=True)
class Variant:
    """The way a model is computed: see `RunSettings`."""

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
    """Returns a model that passed its checks on a sample of the dataset.

    ``given`` is used in place of what ``spec`` describes.  Raises `ModelError` if the model does
    not fit the dataset or breaks its declaration, and `WeightsError` if its weights can't be read.
    """

    def build() -> tuple[BuiltModel, Classifier]:
        built = given or build_model(spec, input_shape=dataset.input_shape)
        return built, vary(built.classifier, precision=variant.precision, compiled=variant.compiled)

    built, classifier = build()
    own = built.classifier.module
    _check_fit(classifier, dataset)
    with their_code("the model can't be run"), classifier.evaluating(device):
        probed = _probe(classifier, sample.to(device))
    weights = state_digest(own)
    answers, notes = _identity(probed, own)
    other = {} if variant.precision == "float32" else {"precision": variant.precision}
    digest = digest_of(
        model=built.identity,
        weights=weights,
        outputs=classifier.outputs.name,
        bounds=[classifier.bounds.low, classifier.bounds.high],
        **answers,
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
        notes=(*built.notes, *(["computed in bfloat16"] if other else []), *notes),
    )
    rebuild = _again(build, weights) if given is None and built.rebuilds else None
    handle = Handle(classifier, size=COPIES * state_bytes(own), rebuild=rebuild)
    return LoadedModel(spec.name, handle, digest, card, probed)


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


def _probe(classifier: Classifier, batch: Batch) -> ProbedAnswers:
    outputs = _probed_outputs(classifier, batch.inputs)
    again = _probed_outputs(classifier, batch.inputs)
    steady = bool((again - outputs).abs().max() <= PROBE_STEADY * outputs.abs().max())
    draws = "" if steady else _draws(classifier, batch.inputs)
    with nullcontext() if steady else same_random_numbers(batch.inputs.device):
        gradient_free, between = _between_pixels(classifier, batch)
    means = (classifier.outputs.confidence(outputs).mean(), outputs.abs().mean(), *between)
    return ProbedAnswers(
        predictions=tuple(outputs.argmax(1).tolist()),
        means=tuple(f"{float(value):.{PROBE_DIGITS}g}" for value in means),
        steady=steady,
        draws=draws,
        forward_only=classifier.forward_only or (NO_GRADIENT if gradient_free else ""),
        kept=_measured(classifier, batch.inputs),
    )


def _identity(probed: ProbedAnswers, module: nn.Module) -> tuple[dict[str, object], list[str]]:
    """Returns what a digest holds of a model's answers, and notes for the model's card.

    The answers of a model that answers at random differ in every run.  In their place the digest
    holds draws from a fixed seed, and the code of the model's parts with the numbers and words that
    they hold.  No other run has the digest if the draws can't be repeated or code can't be read.
    """
    if probed.steady:
        return {"predictions": probed.predictions, "means": probed.means}, []
    parts = list(module.named_modules())
    code = code_digest({type(part) for _, part in parts if not _is_library(type(part))})
    identity: dict[str, object] = {
        "predictions": [],
        "means": [],
        "draws": probed.draws or uuid.uuid4().hex,
        "between": probed.means[2:],
        "settings": [[name, type(part).__qualname__, _values(part)] for name, part in parts],
        "code": code or uuid.uuid4().hex,
    }
    return identity, [UNREADABLE] if code is None else []


def _values(part: nn.Module) -> dict[str, str]:
    """Returns the numbers and words that a module holds, but for whether it trains."""
    return {
        key: repr(value)
        for key, value in vars(part).items()
        if isinstance(value, bool | int | float | str) and key != "training"
    }


def _is_library(kind: type) -> bool:
    return kind.__module__.partition(".")[0] in ("torch", PACKAGE)


def _measured(classifier: Classifier, inputs: Tensor) -> int:
    """Returns the number of bytes that a backward pass needs for one example."""
    if classifier.forward_only:
        return 0
    return kept_bytes(uncompiled(classifier.module), inputs[:MEASURED_EXAMPLES])


def _probed_outputs(classifier: Classifier, inputs: Tensor) -> Tensor:
    pieces = in_pieces(
        lambda part: probe(classifier, inputs[part]), len(inputs), device=inputs.device
    )
    return torch.cat([each.cpu() for each in pieces]).double()


def _draws(classifier: Classifier, inputs: Tensor) -> str:
    """Returns a digest of the model's outputs if its random numbers start from a fixed seed.

    It covers every bit, since models whose noise differs in strength may answer almost alike.  It
    is empty if the outputs differ nevertheless: then the random numbers come from another source,
    such as the operating system, or from a generator that the model keeps.
    """

    def drawn() -> list[bytes]:
        with same_random_numbers(inputs.device):
            return [_probed_outputs(classifier, inputs).numpy().tobytes() for _ in range(DRAWS)]

    first = drawn()
    return hashlib.sha256(b"".join(first)).hexdigest() if drawn() == first else ""


def _between_pixels(classifier: Classifier, batch: Batch) -> tuple[bool, tuple[Tensor, Tensor]]:
    """Returns whether a model has no gradient, and its means off the grid of the data.

    These are of the sizes of outputs and of gradients, at points between possible pixel values.
    The mean gradient is NaN if there is none.  A step that rounds inputs to pixel values, for
    example, changes no output on the data itself, but all that an attack sees.
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
