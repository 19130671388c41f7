"""Builds the models of a plan, checks them on a sample, and derives their digests."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from gibbon.core.errors import ModelError
from gibbon.core.global_state import Changes, GlobalState
from gibbon.datasets.base import Batch, Dataset
from gibbon.models.classifier import Classifier
from gibbon.models.memory import state_bytes
from gibbon.models.reached_values import restoring_values
from gibbon.models.shielding import ModelWrappers, wrappers_for
from gibbon.models.sources import BuiltModel
from gibbon.models.sources.build import build_model
from gibbon.models.weights import state_digest
from gibbon.records.run import ModelCard, PredictionChange
from gibbon.runner.device.model_pool import COPIES, Handle
from gibbon.runner.device.precision import Variant, uncompiled_classifier, vary
from gibbon.runner.failures.raised_by import blaming
from gibbon.runner.plan.cell_digest import digest_of
from gibbon.runner.plan.class_agreement import check_class_names
from gibbon.runner.plan.code_digest import PACKAGE, code_digest
from gibbon.runner.plan.model_code import model_code
from gibbon.runner.plan.probe_model import ProbedAnswers, probe_model, since_first
from gibbon.runner.plan.read_files import ReadFiles, file_digests, noting_files
from gibbon.runner.plan.varied_answers import can_be_padded, check_compiled, compare_predictions
from gibbon.specs.suite import ModelSpec

NOT_RUNNING = "the model can't be run"
LEFT_CHANGED = "loading it left global state changed ({}): it was put back"
UNREADABLE = (
    "it answers at random and its code can't be read (typed into a console or a notebook, or "
    "changed since it was imported), so that its results are never taken from an earlier run"
)
TOO_MUCH = (
    "its code reaches more functions and objects than are followed, so that its results are never "
    "taken from an earlier run"
)


@dataclass(frozen=True)
class LoadedModel:
    """A model of an experiment, ready to be evaluated.

    Args:
        name: its name in the suite.
        handle: its classifier, which can be released and built again.
        digest: the name that it has in digests of cells.
        card: its record.
        probed: its answers to the sample.
        draws: number of draws that it is judged by; 1 unless its answers are random.
    """

    name: str
    handle: Handle
    digest: str
    card: ModelCard
    probed: ProbedAnswers
    draws: int = 1

    @property
    def classifier(self) -> Classifier:
        """The classifier, built again if it was released."""
        return self.handle.classifier


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
    loading = _Loading(spec, dataset, sample, device, variant, given)
    built, changes = loading.build()
    own = built.classifier.module
    _check_fit(built.classifier, dataset)
    check_class_names(built.class_names, dataset)
    wrappers, probed = loading.probe(built)

    def varied(built: BuiltModel) -> Classifier:
        return vary(wrappers.around(built.classifier), variant, padded=can_be_padded(probed))

    classifier = varied(built)
    change = loading.compare_variant(classifier, wrappers.around(built.classifier), probed)
    weights = state_digest(own)
    answers, notes = _identity(probed, own)
    # Of a model that is built again, what its present code has read before in this process counts.
    source = f"{spec.model} {built.identity} {answers['code']}"
    if read := file_digests(source if given is None else own, loading.files):
        answers["files"] = read
    digest = _digest(built, classifier, variant, {"weights": weights, **answers})
    card = ModelCard(
        name=spec.name,
        model=spec.model,
        weights_digest=weights,
        digest=digest,
        outputs=classifier.outputs.name,
        classes=classifier.classes,
        parameters=sum(parameter.numel() for parameter in own.parameters()),
        class_names=built.class_names,
        notes=(
            *built.notes,
            *([LEFT_CHANGED.format(", ".join(changes.numeric))] if changes.numeric else []),
            *wrappers.notes,
            *([] if change is None else [change.sentence]),
            *notes,
        ),
        change=change,
    )
    again = _again(lambda: loading.build()[0], varied, weights)
    rebuild = again if given is None and built.rebuilds else None
    handle = Handle(classifier, size=COPIES * state_bytes(own), rebuild=rebuild)
    return LoadedModel(spec.name, handle, digest, card, probed)


@dataclass(frozen=True)
class _Loading:
    """A model that is built and probed; its code is not trusted with global state or files."""

    spec: ModelSpec
    dataset: Dataset
    sample: Batch
    device: torch.device
    variant: Variant
    given: BuiltModel | None
    files: ReadFiles = field(default_factory=ReadFiles)

    def build(self) -> tuple[BuiltModel, Changes]:
        """Returns the model, and what building it changed in the process."""
        dataset, state = self.dataset, GlobalState.now()
        try:
            with noting_files(self.files):
                built = self.given or build_model(
                    self.spec, input_shape=dataset.input_shape, bounds=dataset.bounds
                )
        finally:
            changes = state.put_back()
        return built, changes

    def probe(self, built: BuiltModel) -> tuple[ModelWrappers, ProbedAnswers]:
        """Returns what the model is wrapped in, and its answers to the sample."""
        with blaming(NOT_RUNNING), noting_files(self.files):
            wrappers = wrappers_for(built.classifier, self.sample.inputs.to(self.device))
        probed, later = self._answers(built, wrappers)
        if later.numeric and wrappers.foreign:  # not in its first calls
            wrappers = wrappers.with_state(later)
            probed, _ = self._answers(built, wrappers)
        whole = wrappers.around(built.classifier)
        first = [each for each in (built.first, wrappers.first) if each is not None]
        with restoring_values(whole.reached), whole.uncounted(), whole.evaluating(self.device):
            return wrappers, since_first(probed, first, whole, self.device)

    def _answers(self, built: BuiltModel, wrappers: ModelWrappers) -> tuple[ProbedAnswers, Changes]:
        # Layout and compiler change no more than rounding: the digest is that without them.
        precision = self.variant.precision
        classifier = vary(wrappers.around(built.classifier), Variant(precision))
        state, calling = GlobalState.now(), blaming(NOT_RUNNING)
        coarse = precision != "float32"
        try:
            with (
                restoring_values(classifier.reached),
                calling,
                noting_files(self.files),
                classifier.evaluating(self.device),
            ):
                probed = probe_model(classifier, self.sample, device=self.device, coarse=coarse)
        except ModelError as error:
            if not coarse:
                raise
            raise ModelError(
                f"{error} (computed in {precision}: leave out --precision if it runs in float32)"
            ) from error
        finally:
            later = state.put_back()
        return probed, later

    def compare_variant(
        self, classifier: Classifier, whole: Classifier, probed: ProbedAnswers
    ) -> PredictionChange | None:
        """Checks a compiled model, and returns the predictions that the variant changes."""
        if self.variant.compiled:
            with restoring_values(classifier.reached), blaming(NOT_RUNNING):
                check_compiled(classifier, probed, device=self.device)
        words = self.variant.words(self.dataset.input_shape)
        if not words:
            return None
        with restoring_values(whole.reached):
            eager = uncompiled_classifier(classifier)
            return compare_predictions(whole, eager, probed, device=self.device, computed=words)


def _digest(
    built: BuiltModel, classifier: Classifier, variant: Variant, parts: dict[str, object]
) -> str:
    other = {} if variant.precision == "float32" else {"precision": variant.precision}
    return digest_of(
        model=built.identity,
        outputs=classifier.outputs.name,
        bounds=[classifier.bounds.low, classifier.bounds.high],
        **parts,
        **other,
    )


def _again(
    build: Callable[[], BuiltModel], varied: Callable[[BuiltModel], Classifier], weights: str
) -> Callable[[], Classifier]:
    def rebuilt() -> Classifier:
        built = build()
        if state_digest(built.classifier.module) != weights:
            raise ModelError(
                "built again it has other weights: its factory is random, or its file changed; "
                "give --models-in-memory a number that holds all models"
            )
        return varied(built)

    return rebuilt


def _identity(probed: ProbedAnswers, module: nn.Module) -> tuple[dict[str, object], list[str]]:
    """Returns what a digest holds of a model's answers, and notes for the model's card.

    Beside the answers it is the code that they come from, so that a change of ``forward`` or of a
    custom ``backward`` counts even if it does not show in the sample.

    The answers of a model that answers at random differ in every run.  In their place the digest
    holds draws from a fixed seed, and the code of the model's parts with the numbers and words that
    they hold.  No other run has the digest if the draws can't be repeated or code can't be read.
    """
    reached = model_code(module)
    if probed.steady:
        steady: dict[str, object] = {
            "predictions": probed.predictions,
            "means": probed.means,
            "projections": probed.projections,
            "modes": probed.modes,
            "code": uuid.uuid4().hex if reached is None else reached,
        }
        return steady, [TOO_MUCH] if reached is None else []
    parts = list(module.named_modules())
    code = code_digest({type(part) for _, part in parts if not _is_library(type(part))})
    identity: dict[str, object] = {
        "predictions": [],
        "means": [],
        "draws": probed.draws or uuid.uuid4().hex,
        "between": probed.means[2:],
        "settings": [[name, type(part).__qualname__, _values(part)] for name, part in parts],
        "code": code or uuid.uuid4().hex,
        "reached": uuid.uuid4().hex if reached is None else reached,
    }
    return identity, [UNREADABLE] if code is None or reached is None else []


def _values(part: nn.Module) -> dict[str, str]:
    """Returns the numbers and words that a module holds, but for whether it trains."""
    return {
        key: repr(value)
        for key, value in vars(part).items()
        if isinstance(value, bool | int | float | str) and key != "training"
    }


def _is_library(kind: type) -> bool:
    return kind.__module__.partition(".")[0] in ("torch", PACKAGE)


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
