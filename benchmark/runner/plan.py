"""From a suite to cells: everything is resolved and checked here, before anything is computed.

A `Cell` is one source model, attack, epsilon and dataset.  Cells that differ in epsilon alone make
one `Job`, because an attack may serve several epsilons from shared work.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmark.attacks.base import (
    Attack,
    DirectionAttack,
    build_attack,
    iterates_of,
    threats_of,
)
from benchmark.attacks.iterates import STOPPING, can_stop
from benchmark.attacks.minimal import MinimalNormAttack
from benchmark.attacks.parameters import parameter_texts
from benchmark.checks import budget_flags
from benchmark.datasets import DataRequest
from benchmark.datasets.base import Dataset
from benchmark.datasets.sources import check_dataset, open_dataset
from benchmark.errors import (
    DeviceError,
    MissingLibraryError,
    ModelError,
    RequestError,
    SpecError,
    WeightsError,
)
from benchmark.memory import free_memory, guess_batch_size
from benchmark.registry import their_code
from benchmark.rng import derive_key
from benchmark.runner.data import NAMED, Selection, default_batch_size, select
from benchmark.runner.digests import code_digest, digest_of
from benchmark.runner.loading import LoadedModel, Variant, load_model
from benchmark.runner.progress import Progress, Silent
from benchmark.runner.stage import Stage
from benchmark.runner.variants import Precision
from benchmark.sources import BuiltModel
from benchmark.sources.building import check_model
from benchmark.specs import UNATTACKED, AttackSpec, Experiment, ModelSpec, Suite
from benchmark.threat import ZERO, Epsilon, ThreatModel

SAVE_EVERY = 10.0
IN_TURN = "attacks in turn"
BARELY = (
    "an example is done once it misleads its own model, and barely misleads it: read its transfer "
    "as a lower bound, and set keep to last or best-loss for another"
)
SHARING = (DirectionAttack, MinimalNormAttack)  # attacks that serve every epsilon at once


@dataclass(frozen=True)
class RunSettings:
    """How to run a suite: none of this changes a result beyond float rounding, but ``limit``.

    Args:
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"`` or ``"mps"``.
        batch_size: examples in one pass; if None chosen by the size of an input and what is free,
            and halved where memory runs out.
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
        pictures: keep pictures of a few examples of each attack (see `benchmark.runner.picking`).
    """

    device: str = "auto"
    batch_size: int | None = None
    precision: Precision = "float32"
    compile: bool = False
    models_in_memory: int | None = None
    workers: int | None = None
    skip_unreadable: bool = False
    limit: int | None = None
    fresh: bool = False
    data_folder: Path = DataRequest.folder
    download: bool = True
    save_every: float = SAVE_EVERY
    pictures: bool = False


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

    ``threat`` is None for the unattacked cell.  ``targets`` hold the source first.  ``follows`` is
    the digest of the cell whose misled examples this one takes over, of a smaller epsilon or
    unattacked; None where all examples are attacked.
    """

    dataset: str
    source: LoadedModel
    attack: PlannedAttack | None
    threat: ThreatModel | None
    targets: tuple[LoadedModel, ...]
    digest: str
    follows: str | None = None

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
    """An experiment with everything looked at.

    ``skipped`` says why examples were left out, one sentence each; ``flags`` what a reader of the
    results should know of both dataset and models.  ``batch_sizes`` go by the name of the source.
    """

    spec: Experiment
    dataset: Dataset
    ids: NDArray[np.int64]
    models: tuple[LoadedModel, ...]
    attacks: tuple[PlannedAttack, ...]
    cells: tuple[Cell, ...]
    batch_sizes: Mapping[str, int]
    skipped: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """A suite with everything loaded and checked."""

    suite: Suite
    settings: RunSettings
    device: torch.device
    experiments: tuple[PlannedExperiment, ...]
    stage: Stage


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
    progress: Progress | None = None,
) -> Plan:
    """Returns the plan of a suite.

    ``where`` is what error messages call the suite, such as its path.

    Raises a `RequestError` for a name, an option, a weights file, a dataset, a device or a model
    that is wrong.  What costs least is checked first.
    """
    for option, number in [
        ("--batch-size", settings.batch_size),
        ("--models-in-memory", settings.models_in_memory),
        ("--workers", settings.workers),
    ]:
        least = 0 if option == "--workers" else 1
        if number is not None and number < least:
            raise SpecError(f"must be at least {least}, got {number}", where=option)
    device = choose_device(settings.device)
    short = len(suite.experiments) == 1
    attacks, keys, missing = [], [], []
    for index, experiment in enumerate(suite.experiments):
        prefix = "" if short else f"experiments[{index}]."
        key = f"{where or f'suite {suite.name}'}: {prefix}"
        keys.append(key)
        if experiment.dataset.name not in supplied.datasets:
            check_dataset(experiment.dataset, where=f"{key}dataset")
        for place, model in enumerate(experiment.models):
            if model.name not in supplied.models:
                check_model(model, where=f"{key}models[{place}]")
        planned: list[PlannedAttack] = []
        absent: dict[str, str] = {}
        for place, spec in enumerate(experiment.attacks):
            given = supplied.attacks.get(spec.label)
            at = f"{key}attacks[{place}]"
            try:
                planned.append(_plan_attack(spec, experiment, suite.seed, where=at, given=given))
            except MissingLibraryError as error:
                if not spec.optional:
                    raise
                absent[spec.label] = str(error).removeprefix(f"{at}.name: ")
        attacks.append(tuple(planned))
        missing.append(absent)
    stage = Stage(device, places=settings.models_in_memory)
    loader = _Loader(settings, device, stage, supplied, progress or Silent())
    experiments = tuple(
        loader.load(experiment, planned, where=key, missing=absent)
        for experiment, planned, key, absent in zip(
            suite.experiments, attacks, keys, missing, strict=True
        )
    )
    return Plan(suite, settings, device, experiments, stage)


def choose_device(asked: str, *, where: str = "--device") -> torch.device:
    """Returns the device that was asked for.

    ``where`` is what error messages call the option.  Raises `DeviceError` where it is not there.
    """
    if asked == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(asked)
    except RuntimeError:
        raise DeviceError(
            f"{where}: expected auto, cpu, cuda, cuda:1 or mps, got {asked!r}"
        ) from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise DeviceError(
            f"{where}: {asked!r} is not there: torch sees {torch.cuda.device_count()} CUDA devices"
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise DeviceError(f"{where}: 'mps' is not there")
    if device.type not in ("cpu", "cuda", "mps"):
        raise DeviceError(f"{where}: expected auto, cpu, cuda, cuda:1 or mps, got {asked!r}")
    return device


def _plan_attack(
    spec: AttackSpec, experiment: Experiment, seed: int, *, where: str, given: Attack | None
) -> PlannedAttack:
    with their_code(f"{where}: attack {spec.name!r} can't be built"):
        attack = given if given is not None else build_attack(spec, where=where)
    if spec.carried and isinstance(attack, MinimalNormAttack):
        raise SpecError(
            f"attack {spec.name!r} looks for the nearest point once, for all epsilons: its curve "
            "never falls, and there is nothing to spare at larger ones; leave it out",
            where=f"{where}.carried",
        )
    transfer = experiment.transfer
    # Bounds are the dataset's; they are filled in once it is loaded.
    try:
        identity = _identity(attack)  # not its code: the same numbers after a tidying
        # In every list alike: another member, name or order changes no member's numbers.
        key = derive_key(seed, IN_TURN if attack.made_of else identity)
    except SpecError as error:
        raise SpecError(str(error), where=where) from error
    if experiment.error_only and can_stop(type(attack)) and "keep" not in spec.parameters:
        # After the key was made: the random numbers are those without the early stop.
        attack = replace(attack, keep=STOPPING)  # type: ignore[type-var]
    transferred = transfer is not None and spec.label in transfer.attacks
    return PlannedAttack(spec, attack, (), key, transferred)


@dataclass(frozen=True)
class _Loader:
    """Loads what experiments name, and looks at it."""

    settings: RunSettings
    device: torch.device
    stage: Stage
    supplied: Supplied
    progress: Progress

    def load(
        self,
        spec: Experiment,
        attacks: tuple[PlannedAttack, ...],
        *,
        where: str,
        missing: Mapping[str, str],
    ) -> PlannedExperiment:
        """Returns an experiment with its dataset and models looked at, and its cells."""
        name = spec.dataset.name
        dataset, chosen = self._data(spec, where=where)
        models = tuple(
            self._model(model, dataset, chosen, where=f"{where}models[{place}]: {model.name!r}: ")
            for place, model in enumerate(spec.models)
        )
        attacks = tuple(
            replace(
                planned, threats=threats_of(planned.spec, planned.attack, bounds=dataset.bounds)
            )
            for planned in attacks
        )
        left_out = _left_out(models, attacks, where=where)
        data_digest = digest_of(
            content=dataset.digest,
            ids=hashlib.sha256(chosen.ids.astype("<i8").tobytes()).hexdigest(),
        )
        cells = tuple(
            cell
            for cell in _cells(spec, data_digest, models, attacks)
            if (cell.source.name, cell.label) not in left_out
        )
        return PlannedExperiment(
            spec,
            dataset,
            chosen.ids,
            models,
            attacks,
            cells,
            self._batch_sizes(models, dataset),
            chosen.skipped,
            (
                *_sentences(name, chosen, left_out, missing),
                *(
                    f"{name}, {flag}"
                    for planned in attacks
                    for flag in budget_flags(planned.label, planned.threats)
                ),
                *(
                    f"{name}, {planned.label}: {BARELY}"
                    for planned in attacks
                    if planned.transferred and STOPPING in iterates_of(planned.attack)
                ),
                *(
                    f"{name}, {model.name}, {planned.label}: {caveat}"
                    for model in models
                    for planned in attacks
                    if (model.name, planned.label) not in left_out
                    for caveat in planned.attack.caveats(model.card.classes)
                ),
            ),
        )

    def _data(self, spec: Experiment, *, where: str) -> tuple[Dataset, Selection]:
        asked, settings = spec.dataset, self.settings
        dataset = self.supplied.datasets.get(asked.name)
        request = DataRequest(
            asked.split, settings.data_folder, settings.download, workers=settings.workers
        )
        with their_code(f"{where}dataset: {asked.name!r} can't be loaded"):
            if dataset is None:
                dataset = open_dataset(asked, request)
            chosen = select(
                dataset,
                limit=settings.limit,
                skip_unreadable=settings.skip_unreadable or asked.skip_unreadable,
                progress=self.progress,
            )
        return dataset, chosen

    def _model(
        self, spec: ModelSpec, dataset: Dataset, chosen: Selection, *, where: str
    ) -> LoadedModel:
        self.stage.expect()
        try:
            model = load_model(
                spec,
                dataset=dataset,
                sample=chosen.sample,
                device=self.device,
                variant=Variant(self.settings.precision, self.settings.compile),
                given=self.supplied.models.get(spec.name),
            )
        except RequestError as error:
            kind = WeightsError if isinstance(error, WeightsError) else ModelError
            raise kind(f"{where}{error}") from error
        self.stage.admit(model.handle)
        return model

    def _batch_sizes(self, models: Sequence[LoadedModel], dataset: Dataset) -> dict[str, int]:
        """Returns how many examples each source is given at once, to begin with."""
        if self.settings.batch_size is not None:
            return {model.name: self.settings.batch_size for model in models}
        free = free_memory(self.device)
        if free is not None and self.device.type != "cpu":  # there the models are not loaded yet
            free -= sum(model.handle.size for model in models)
        return {
            model.name: guess_batch_size(
                default_batch_size(dataset),
                device=self.device,
                kept=model.kept,
                numbers=math.prod(dataset.input_shape),
                free=free,
            )
            for model in models
        }


def _left_out(
    models: Sequence[LoadedModel], attacks: Sequence[PlannedAttack], *, where: str
) -> dict[tuple[str, str], str]:
    """Returns which models are no source of which attacks, by both names, and why.

    A model without gradients can't be attacked by what needs them; it stays a target where the
    attack is transferred from another one.  Raises `ModelError` where there is none.
    """
    left_out = {}
    others = any(not model.forward_only for model in models)
    for place, model in enumerate(models):
        for planned in attacks:
            if not model.forward_only or not planned.attack.needs_gradient:
                continue
            if not (planned.transferred and others):
                raise ModelError(
                    f"{where}models[{place}]: {model.name!r}: {model.forward_only}: attack "
                    f"{planned.label!r} needs them; name the attack under transfer and add a model "
                    "with gradients to make the examples on, or take an attack that needs none, "
                    "such as noise-sign"
                )
            left_out[model.name, planned.label] = model.forward_only
    return left_out


def _sentences(
    dataset: str,
    chosen: Selection,
    left_out: Mapping[tuple[str, str], str],
    missing: Mapping[str, str],
) -> Iterator[str]:
    if chosen.skipped:
        count, total = len(chosen.skipped), len(chosen.ids) + len(chosen.skipped)
        more = f"; and {count - NAMED} more" if count > NAMED else ""
        yield (
            f"{dataset}: {count} of {total} examples can't be read and were left out: "
            f"{'; '.join(chosen.skipped[:NAMED])}{more}"
        )
    for attack, reason in missing.items():
        yield f"{dataset}: the optional attack {attack} was not run: {reason}"
    for (model, attack), reason in left_out.items():
        yield (
            f"{dataset}, {model}: no examples of {attack} are made on it, only on the others: "
            f"{reason}"
        )


def _cells(
    experiment: Experiment,
    data_digest: str,
    models: tuple[LoadedModel, ...],
    attacks: tuple[PlannedAttack, ...],
) -> Iterator[Cell]:
    dataset = experiment.dataset.name
    for source in models:
        clean = digest_of(data=data_digest, source=source.digest, attack=UNATTACKED)
        yield Cell(dataset, source, None, None, (source,), clean)
        for planned in attacks:
            others = models if planned.transferred else ()
            targets = (source, *(each for each in others if each is not source))
            before = clean
            follows: dict[ThreatModel, str | None] = dict.fromkeys(planned.threats)
            digests: dict[ThreatModel, str] = {}
            # Ascending, for what is carried; the tables have the order of the suite.
            for threat in sorted(planned.threats, key=lambda each: each.epsilon):
                more: dict[str, object] = {}
                if planned.spec.carried:
                    more["follows"] = follows[threat] = before
                if goes_by_member(experiment, planned):
                    more["by_member"] = True
                before = digests[threat] = digest_of(
                    data=data_digest,
                    source=source.digest,
                    attack=[_identity(planned.attack), *_codes(planned.attack)],
                    key=planned.stream_key,
                    norm=threat.norm,
                    epsilon=str(threat.epsilon.value),
                    bounds=threat.bounds and [threat.bounds.low, threat.bounds.high],
                    **more,
                )
            for threat in planned.threats:
                yield Cell(
                    dataset, source, planned, threat, targets, digests[threat], follows[threat]
                )


def goes_by_member(experiment: Experiment, planned: PlannedAttack) -> bool:
    """Says whether a list of attacks is run member by member, each on all that is left over."""
    return experiment.error_only and bool(planned.attack.made_of)


def _identity(attack: Attack) -> str:
    kind = type(attack)
    named = [kind.__module__, kind.__qualname__, kind.version, parameter_texts(attack)]
    return json.dumps([*named, *map(_identity, attack.made_of)])


def _codes(attack: Attack) -> list[str]:
    """Returns the digests of an attack's code, and of those that it is made of."""
    own = code_digest(type(attack))
    return [own, *(each for member in attack.made_of for each in _codes(member))]
