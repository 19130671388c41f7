"""From a suite to cells: everything is resolved and checked here, before anything is computed.

A `Cell` is one source model, attack, epsilon and dataset.  Cells that differ in epsilon alone make
one `Job`, because an attack may serve several epsilons from shared work.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmark.attacks.base import Attack, build_attack, parameters_of, threats_of
from benchmark.classifier import Classifier, probe
from benchmark.datasets import DATASETS, DataRequest
from benchmark.datasets.base import Dataset, sample_ids
from benchmark.errors import DeviceError, ModelError, SpecError
from benchmark.models import MODELS
from benchmark.records import ModelCard
from benchmark.rng import derive_key
from benchmark.specs import UNATTACKED, AttackSpec, Experiment, ModelSpec, Suite
from benchmark.threat import ZERO, Epsilon, ThreatModel
from benchmark.weights import state_digest

DIGEST_FORMAT = 1  # goes up when the meaning of a stored outcome changes
PROBE_SIZE = 256
PROBE_DIGITS = 4  # of the probe's means: far coarser than the rounding of another device or batch
DEFAULT_BATCH_SIZE = 500
SAVE_EVERY = 10.0


@dataclass(frozen=True)
class RunSettings:
    """How to run a suite: none of this changes a result beyond float rounding, but ``limit``.

    Args:
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"`` or ``"mps"``.
        batch_size: examples in one pass.
        limit: take this many examples of each dataset (see `sample_ids`); all if None.
        fresh: throw away what is recorded and compute everything again.
        data_folder: where datasets that are not embedded are looked for and downloaded to.
        download: whether a dataset that is not there may be fetched.
        save_every: seconds between two savings of a job under way.
    """

    device: str = "auto"
    batch_size: int = DEFAULT_BATCH_SIZE
    limit: int | None = None
    fresh: bool = False
    data_folder: Path = DataRequest.folder
    download: bool = True
    save_every: float = SAVE_EVERY


@dataclass(frozen=True)
class LoadedModel:
    """A model of an experiment, ready to be evaluated, and what its results are filed under."""

    name: str
    classifier: Classifier
    digest: str
    card: ModelCard


@dataclass(frozen=True)
class PlannedAttack:
    """An attack of an experiment with its threat models, one an epsilon."""

    spec: AttackSpec
    attack: Attack
    threats: tuple[ThreatModel, ...]
    stream_key: int
    transferred: bool

    @property
    def label(self) -> str:
        """What the tables call it."""
        return self.spec.label


@dataclass(frozen=True)
class Cell:
    """One source model, attack, epsilon and dataset, with the targets it is to be scored on.

    ``threat`` is None for the unattacked cell.  ``targets`` hold the source first.
    """

    dataset: str
    source: LoadedModel
    attack: PlannedAttack | None
    threat: ThreatModel | None
    targets: tuple[LoadedModel, ...]
    digest: str

    @property
    def label(self) -> str:
        """What the tables call the attack."""
        return self.attack.label if self.attack is not None else UNATTACKED

    @property
    def epsilon(self) -> Epsilon:
        """The budget; zero for the unattacked cell."""
        return self.threat.epsilon if self.threat is not None else ZERO

    def __str__(self) -> str:
        if self.attack is None:
            return f"{self.dataset}, {self.source.name}, unattacked"
        return f"{self.dataset}, {self.source.name}, {self.label} at epsilon {self.epsilon}"


@dataclass(frozen=True)
class PlannedExperiment:
    """An experiment with everything loaded."""

    spec: Experiment
    dataset: Dataset
    ids: NDArray[np.int64]
    models: tuple[LoadedModel, ...]
    attacks: tuple[PlannedAttack, ...]
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Plan:
    """A suite with everything loaded and checked."""

    suite: Suite
    settings: RunSettings
    device: torch.device
    experiments: tuple[PlannedExperiment, ...]


def make_plan(suite: Suite, settings: RunSettings, *, where: str = "") -> Plan:
    """Returns the plan of a suite.

    ``where`` is what error messages call the suite, such as its path.

    Raises a `RequestError` for a name, an option, a weights file, a dataset, a device or a model
    that is wrong.  What costs least is checked first.
    """
    if settings.batch_size < 1:
        raise SpecError(f"must be at least 1, got {settings.batch_size}", where="--batch-size")
    device = choose_device(settings.device)
    short = len(suite.experiments) == 1
    attacks = []
    for index, experiment in enumerate(suite.experiments):
        prefix = "" if short else f"experiments[{index}]."
        key = f"{where or f'suite {suite.name}'}: {prefix}"
        DATASETS.get(experiment.dataset, where=f"{key}dataset")
        for place, model in enumerate(experiment.models):
            MODELS.get(model.model, where=f"{key}models[{place}]")
        attacks.append(
            tuple(
                _plan_attack(spec, experiment, suite.seed, where=f"{key}attacks[{place}]")
                for place, spec in enumerate(experiment.attacks)
            )
        )
    experiments = tuple(
        _plan_experiment(experiment, planned, settings, device)
        for experiment, planned in zip(suite.experiments, attacks, strict=True)
    )
    return Plan(suite, settings, device, experiments)


def choose_device(asked: str) -> torch.device:
    """Returns the device that was asked for.  Raises `DeviceError` where it is not there."""
    if asked == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(asked)
    except RuntimeError:
        raise DeviceError(
            f"--device: expected auto, cpu, cuda, cuda:1 or mps, got {asked!r}"
        ) from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise DeviceError(
            f"--device: {asked!r} is not there: torch sees {torch.cuda.device_count()} CUDA devices"
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise DeviceError("--device: 'mps' is not there")
    if device.type not in ("cpu", "cuda", "mps"):
        raise DeviceError(f"--device: expected auto, cpu, cuda, cuda:1 or mps, got {asked!r}")
    return device


def load_model(spec: ModelSpec, *, dataset: Dataset, device: torch.device) -> LoadedModel:
    """Returns a model that was seen to do what it declares, on examples of this dataset.

    Raises `ModelError` where it does not fit the dataset or breaks its declaration, and
    `WeightsError` where its weights can't be had.
    """
    classifier = _build(spec)
    try:
        _check_fit(classifier, dataset)
        inputs = dataset.batch(sample_ids(dataset, PROBE_SIZE)).inputs.to(device)
        with classifier.evaluating(device):
            outputs = probe(classifier, inputs).double().cpu()
            confidence = classifier.outputs.confidence(outputs).mean()
    except ModelError as error:
        raise ModelError(f"model {spec.name!r}: {error}") from error
    weights = state_digest(classifier.module)
    means = [f"{float(value):.{PROBE_DIGITS}g}" for value in (confidence, outputs.abs().mean())]
    digest = _digest(
        model=spec.model,
        weights=weights,
        outputs=classifier.outputs.name,
        bounds=[classifier.bounds.low, classifier.bounds.high],
        predictions=outputs.argmax(1).tolist(),
        means=means,
    )
    card = ModelCard(
        name=spec.name,
        model=spec.model,
        weights_digest=weights,
        digest=digest,
        outputs=classifier.outputs.name,
        classes=classifier.classes,
        parameters=sum(parameter.numel() for parameter in classifier.module.parameters()),
    )
    return LoadedModel(spec.name, classifier, digest, card)


def _build(spec: ModelSpec) -> Classifier:
    builder = MODELS.load(spec.model)
    if spec.weights is None:
        built = builder()
    elif "weights" in inspect.signature(builder).parameters:
        built = builder(weights=spec.weights)
    else:
        raise SpecError(f"model {spec.model!r} takes no weights file", where=spec.name)
    if not isinstance(built, Classifier):
        raise ModelError(
            f"model {spec.name!r}: its entry point must return a benchmark.classifier.Classifier, "
            f"got {type(built).__name__}"
        )
    return built


def _check_fit(classifier: Classifier, dataset: Dataset) -> None:
    if classifier.classes != len(dataset.classes):
        raise ModelError(
            f"it has {classifier.classes} classes, "
            f"dataset {dataset.name!r} has {len(dataset.classes)}"
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


def _plan_attack(
    spec: AttackSpec, experiment: Experiment, seed: int, *, where: str
) -> PlannedAttack:
    attack = build_attack(spec, where=where)
    transfer = experiment.transfer
    # Bounds are the dataset's; they are filled in once it is loaded.
    key = derive_key(seed, _identity(attack))
    transferred = transfer is not None and spec.label in transfer.attacks
    return PlannedAttack(spec, attack, (), key, transferred)


def _plan_experiment(
    spec: Experiment,
    attacks: tuple[PlannedAttack, ...],
    settings: RunSettings,
    device: torch.device,
) -> PlannedExperiment:
    request = DataRequest("test", settings.data_folder, settings.download)
    dataset = DATASETS.load(spec.dataset)(request)
    ids = sample_ids(dataset, settings.limit)
    models = tuple(load_model(model, dataset=dataset, device=device) for model in spec.models)
    attacks = tuple(
        PlannedAttack(
            planned.spec,
            planned.attack,
            threats_of(planned.spec, planned.attack, bounds=dataset.bounds),
            planned.stream_key,
            planned.transferred,
        )
        for planned in attacks
    )
    data_digest = _digest(
        content=dataset.digest, ids=hashlib.sha256(ids.astype("<i8").tobytes()).hexdigest()
    )
    cells = tuple(_cells(spec.dataset, data_digest, models, attacks))
    return PlannedExperiment(spec, dataset, ids, models, attacks, cells)


def _cells(
    dataset: str,
    data_digest: str,
    models: tuple[LoadedModel, ...],
    attacks: tuple[PlannedAttack, ...],
) -> Iterator[Cell]:
    for source in models:
        digest = _digest(data=data_digest, source=source.digest, attack=UNATTACKED)
        yield Cell(dataset, source, None, None, (source,), digest)
        for planned in attacks:
            others = models if planned.transferred else ()
            targets = (source, *(each for each in others if each is not source))
            for threat in planned.threats:
                digest = _digest(
                    data=data_digest,
                    source=source.digest,
                    attack=_identity(planned.attack),
                    key=planned.stream_key,
                    norm=threat.norm,
                    epsilon=str(threat.epsilon.value),
                    bounds=threat.bounds and [threat.bounds.low, threat.bounds.high],
                )
                yield Cell(dataset, source, planned, threat, targets, digest)


def _identity(attack: Attack) -> str:
    kind = type(attack)
    parameters = {key: repr(value) for key, value in sorted(parameters_of(attack).items())}
    return json.dumps([kind.__module__, kind.__qualname__, kind.version, parameters])


def _digest(**parts: object) -> str:
    text = json.dumps({"format": DIGEST_FORMAT, **parts}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]
