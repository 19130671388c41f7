"""From a suite to cells: everything is resolved and checked here, before anything is computed.

A `Cell` is one source model, attack, epsilon and dataset.  Cells that differ in epsilon alone make
one `Job`, because an attack may serve several epsilons from shared work.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmark.attacks.base import Attack, build_attack, parameters_of, threats_of
from benchmark.classifier import Classifier, probe
from benchmark.datasets import DataRequest
from benchmark.datasets.base import Batch, Dataset, sample_ids
from benchmark.datasets.sources import check_dataset, open_dataset
from benchmark.errors import (
    DatasetError,
    DeviceError,
    ModelError,
    RequestError,
    SpecError,
    WeightsError,
)
from benchmark.records import ModelCard
from benchmark.registry import their_code
from benchmark.rng import ExampleStreams, derive_key
from benchmark.sources import BuiltModel
from benchmark.sources.building import build_model, check_model
from benchmark.specs import UNATTACKED, AttackSpec, Experiment, ModelSpec, Suite
from benchmark.threat import ZERO, Epsilon, ThreatModel
from benchmark.weights import state_digest

DIGEST_FORMAT = 1  # goes up when the meaning of a stored outcome changes
PROBE_SIZE = 256
PROBE_DIGITS = 4  # of the probe's means: far coarser than the rounding of another device or batch
PROBE_STEADY = 1e-4  # of the largest output: what a GPU's sums may differ by from call to call
PROBE_NOISE = 0.1  # how far the probe goes from the data, as a share of the bounds
# Numbers in one batch of inputs unless a batch size is asked for: 1,000 MNIST pictures, with which
# FGSM at five epsilons takes at most a tenth more than its passes; fewer, larger pictures.
DEFAULT_BATCH_NUMBERS = 1000 * 28 * 28
SMALLEST_DEFAULT_BATCH = 16
SAVE_EVERY = 10.0


@dataclass(frozen=True)
class RunSettings:
    """How to run a suite: none of this changes a result beyond float rounding, but ``limit``.

    Args:
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"`` or ``"mps"``.
        batch_size: examples in one pass; chosen by the size of an input if None.
        precision: what the model computes in; ``"bfloat16"`` is another model to the records.
        compile: whether models go through ``torch.compile``.
        models_in_memory: how many models are kept on the device at once; what fits if None.
        workers: processes that decode pictures; chosen by the number of processors if None.
        skip_unreadable: leave out examples that can't be read, whatever the suite says.
        limit: take this many examples of each dataset (see `sample_ids`); all if None.
        fresh: throw away what is recorded and compute everything again.
        data_folder: where datasets that are not embedded are looked for and downloaded to.
        download: whether a dataset that is not there may be fetched.
        save_every: seconds between two savings of a job under way.
    """

    device: str = "auto"
    batch_size: int | None = None
    precision: Literal["float32", "bfloat16"] = "float32"
    compile: bool = False
    models_in_memory: int | None = None
    workers: int | None = None
    skip_unreadable: bool = False
    limit: int | None = None
    fresh: bool = False
    data_folder: Path = DataRequest.folder
    download: bool = True
    save_every: float = SAVE_EVERY


@dataclass(frozen=True)
class LoadedModel:
    """A model of an experiment, ready to be evaluated, and what its results are filed under.

    ``steady``: it answers the same inputs alike each time.
    """

    name: str
    classifier: Classifier
    digest: str
    card: ModelCard
    steady: bool


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
    batch_size: int


@dataclass(frozen=True)
class Plan:
    """A suite with everything loaded and checked."""

    suite: Suite
    settings: RunSettings
    device: torch.device
    experiments: tuple[PlannedExperiment, ...]


@dataclass(frozen=True)
class Supplied:
    """Models, datasets and attacks that are there already, by what a suite calls them.

    They stand before whatever their specs say of where they come from.  Attacks go by label.
    """

    models: Mapping[str, BuiltModel] = field(default_factory=dict)
    datasets: Mapping[str, Dataset] = field(default_factory=dict)
    attacks: Mapping[str, Attack] = field(default_factory=dict)


NOTHING_SUPPLIED = Supplied()


def make_plan(
    suite: Suite,
    settings: RunSettings,
    *,
    where: str = "",
    supplied: Supplied = NOTHING_SUPPLIED,
) -> Plan:
    """Returns the plan of a suite.

    ``where`` is what error messages call the suite, such as its path.

    Raises a `RequestError` for a name, an option, a weights file, a dataset, a device or a model
    that is wrong.  What costs least is checked first.
    """
    if settings.batch_size is not None and settings.batch_size < 1:
        raise SpecError(f"must be at least 1, got {settings.batch_size}", where="--batch-size")
    device = choose_device(settings.device)
    short = len(suite.experiments) == 1
    attacks, keys = [], []
    for index, experiment in enumerate(suite.experiments):
        prefix = "" if short else f"experiments[{index}]."
        key = f"{where or f'suite {suite.name}'}: {prefix}"
        keys.append(key)
        if experiment.dataset.name not in supplied.datasets:
            check_dataset(experiment.dataset, where=f"{key}dataset")
        for place, model in enumerate(experiment.models):
            if model.name not in supplied.models:
                check_model(model, where=f"{key}models[{place}]")
        attacks.append(
            tuple(
                _plan_attack(
                    spec,
                    experiment,
                    suite.seed,
                    where=f"{key}attacks[{place}]",
                    given=supplied.attacks.get(spec.label),
                )
                for place, spec in enumerate(experiment.attacks)
            )
        )
    experiments = tuple(
        _plan_experiment(experiment, planned, settings, device, where=key, supplied=supplied)
        for experiment, planned, key in zip(suite.experiments, attacks, keys, strict=True)
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


def load_model(
    spec: ModelSpec,
    *,
    dataset: Dataset,
    device: torch.device,
    supplied: Supplied = NOTHING_SUPPLIED,
) -> LoadedModel:
    """Returns a model that was seen to do what it declares, on examples of this dataset.

    Raises `ModelError` where it does not fit the dataset or breaks its declaration, and
    `WeightsError` where its weights can't be had.
    """
    built = supplied.models.get(spec.name)
    if built is None:
        built = build_model(spec, input_shape=dataset.input_shape)
    classifier = built.classifier
    _check_fit(classifier, dataset)
    batch = dataset.batch(sample_ids(dataset, PROBE_SIZE)).to(device)
    with their_code("the model can't be run"), classifier.evaluating(device):
        outputs = probe(classifier, batch.inputs).double().cpu()
        again = probe(classifier, batch.inputs).double().cpu()
        steady = bool((again - outputs).abs().max() <= PROBE_STEADY * outputs.abs().max())
        means = [
            f"{float(value):.{PROBE_DIGITS}g}"
            for value in (
                classifier.outputs.confidence(outputs).mean(),
                outputs.abs().mean(),
                *_between_pixels(classifier, batch),
            )
        ]
    weights = state_digest(classifier.module)
    digest = _digest(
        model=built.identity,
        weights=weights,
        outputs=classifier.outputs.name,
        bounds=[classifier.bounds.low, classifier.bounds.high],
        # A model that answers at random would be another one every time.
        predictions=outputs.argmax(1).tolist() if steady else [],
        means=means if steady else [],
    )
    card = ModelCard(
        name=spec.name,
        model=spec.model,
        weights_digest=weights,
        digest=digest,
        outputs=classifier.outputs.name,
        classes=classifier.classes,
        parameters=sum(parameter.numel() for parameter in classifier.module.parameters()),
        notes=built.notes,
    )
    return LoadedModel(spec.name, classifier, digest, card, steady)


def _between_pixels(classifier: Classifier, batch: Batch) -> tuple[Tensor, Tensor]:
    """Returns what the model does off the grid of the data: its mean output, and mean gradient.

    The gradient of a model that has none is NaN: it can still be attacked by what needs none.
    A step in front of the model that rounds inputs to pixel values, say, changes nothing on the
    data itself and everything for an attack.
    """
    key = derive_key("gibbon", "the probe between pixels")
    noise = ExampleStreams.derive(key, batch.ids).uniform(batch.inputs.shape[1:])
    bounds = classifier.bounds
    nearby = batch.inputs + (noise - 0.5) * (PROBE_NOISE * bounds.width)
    nearby = nearby.clamp_(bounds.low, bounds.high)
    leaf = nearby.detach().requires_grad_()
    with torch.enable_grad():
        outputs = classifier(leaf)
    gradient = torch.tensor(torch.nan)
    if outputs.requires_grad:
        ascent = classifier.outputs.ascent(outputs.detach(), batch.labels)
        (gradient,) = torch.autograd.grad(outputs, leaf, ascent)
    return outputs.detach().double().abs().mean(), gradient.double().abs().mean()


def _check_fit(classifier: Classifier, dataset: Dataset) -> None:
    if dataset.partial:
        _check_labels(classifier, dataset)
    elif classifier.classes != len(dataset.classes):
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


def _check_labels(classifier: Classifier, dataset: Dataset) -> None:
    highest = int(dataset.labels.max())
    if highest >= classifier.classes:
        raise ModelError(
            f"it has {classifier.classes} classes, so that labels go from 0 to "
            f"{classifier.classes - 1}; dataset {dataset.name!r} has a label {highest}"
        )


def _check_dataset(dataset: Dataset) -> None:
    classes, bounds = len(dataset.classes), dataset.bounds
    if len(dataset) == 0:
        raise DatasetError(f"dataset {dataset.name!r} is empty")
    low, high = int(dataset.labels.min()), int(dataset.labels.max())
    if low < 0 or high >= classes:
        raise DatasetError(
            f"dataset {dataset.name!r}: labels must be 0 to {classes - 1}, got {low} to {high}"
        )
    ids = sample_ids(dataset, PROBE_SIZE)
    batch = dataset.batch(ids)
    for what, expected, came in [
        ("inputs", torch.float32, batch.inputs.dtype),
        ("labels", torch.int64, batch.labels.dtype),
        ("a batch's shape", (len(ids), *dataset.input_shape), tuple(batch.inputs.shape)),
    ]:
        if expected != came:
            raise DatasetError(f"dataset {dataset.name!r}: {what} must be {expected}, got {came}")
    asked = np.array_equal(batch.ids.numpy(), ids)
    if not asked or not np.array_equal(batch.labels.numpy(), dataset.labels[ids]):
        raise DatasetError(
            f"dataset {dataset.name!r}: a batch must hold the examples that were asked for, in "
            "that order, with their labels"
        )
    least, most = float(batch.inputs.min()), float(batch.inputs.max())
    if not (bounds.low <= least and most <= bounds.high):  # NaN is not in any box either
        raise DatasetError(
            f"dataset {dataset.name!r}: inputs must be in [{bounds.low:g}, {bounds.high:g}], "
            f"got [{least:g}, {most:g}]"
        )


def _plan_attack(
    spec: AttackSpec, experiment: Experiment, seed: int, *, where: str, given: Attack | None
) -> PlannedAttack:
    with their_code(f"{where}: attack {spec.name!r} can't be built"):
        attack = given if given is not None else build_attack(spec, where=where)
    transfer = experiment.transfer
    # Bounds are the dataset's; they are filled in once it is loaded.
    key = derive_key(seed, _identity(attack))  # not its code: the same numbers after a tidying
    transferred = transfer is not None and spec.label in transfer.attacks
    return PlannedAttack(spec, attack, (), key, transferred)


def _plan_experiment(
    spec: Experiment,
    attacks: tuple[PlannedAttack, ...],
    settings: RunSettings,
    device: torch.device,
    *,
    where: str,
    supplied: Supplied,
) -> PlannedExperiment:
    name = spec.dataset.name
    dataset = supplied.datasets.get(name)
    request = DataRequest(spec.dataset.split, settings.data_folder, settings.download)
    with their_code(f"{where}dataset: {name!r} can't be loaded"):
        if dataset is None:
            dataset = open_dataset(spec.dataset, request)
        _check_dataset(dataset)
    ids = sample_ids(dataset, settings.limit)
    models = []
    for place, model in enumerate(spec.models):
        try:
            models.append(load_model(model, dataset=dataset, device=device, supplied=supplied))
        except RequestError as error:
            kind = WeightsError if isinstance(error, WeightsError) else ModelError
            raise kind(f"{where}models[{place}]: {model.name!r}: {error}") from error
    attacks = tuple(
        replace(planned, threats=threats_of(planned.spec, planned.attack, bounds=dataset.bounds))
        for planned in attacks
    )
    data_digest = _digest(
        content=dataset.digest, ids=hashlib.sha256(ids.astype("<i8").tobytes()).hexdigest()
    )
    cells = tuple(_cells(name, data_digest, tuple(models), attacks))
    size = settings.batch_size or default_batch_size(dataset)
    return PlannedExperiment(spec, dataset, ids, tuple(models), attacks, cells, size)


def default_batch_size(dataset: Dataset) -> int:
    """Returns how many examples of a dataset go into one pass unless it is said."""
    fitting = DEFAULT_BATCH_NUMBERS // max(1, math.prod(dataset.input_shape))
    return max(SMALLEST_DEFAULT_BATCH, fitting)


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
                    attack=[_identity(planned.attack), _code(type(planned.attack))],
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


def _code(kind: type[Attack]) -> str:
    """Returns a digest of the code of an attack's module, comments and layout left out.

    So an author who changes an attack gets new numbers without thinking of `Attack.version`.
    """
    try:
        module = inspect.getmodule(kind)
        source = inspect.getsource(module if module is not None else kind)
        return hashlib.sha256(ast.unparse(ast.parse(source)).encode()).hexdigest()
    except (OSError, TypeError, SyntaxError):  # typed into a console, or compiled: no source
        return ""


def _digest(**parts: object) -> str:
    text = json.dumps({"format": DIGEST_FORMAT, **parts}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]
