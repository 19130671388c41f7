"""Plans a suite: everything is loaded and checked before anything is computed."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from gibbon.attacks.base import STOPPING, Attack, SharedWork, can_stop, iterates_of, threats_of
from gibbon.attacks.factory import build_attack
from gibbon.core.errors import (
    MissingLibraryError,
    ModelError,
    RequestError,
    SpecError,
    WeightsError,
)
from gibbon.core.registry import their_code
from gibbon.core.rng import derive_key
from gibbon.datasets import DataRequest
from gibbon.datasets.base import Dataset
from gibbon.datasets.open import check_dataset, open_dataset
from gibbon.models.memory import BatchSize, free_memory, guess_batch_size
from gibbon.models.sources.build import check_model
from gibbon.records.flags import budget_flags
from gibbon.runner.model_pool import ModelPool
from gibbon.runner.plan.attack_digest import UNREADABLE, is_readable
from gibbon.runner.plan.code_digest import digest_of
from gibbon.runner.plan.device import choose_device
from gibbon.runner.plan.load_model import LoadedModel, Variant, load_model
from gibbon.runner.plan.make_cells import make_cells
from gibbon.runner.plan.planned import (
    NOTHING_SUPPLIED,
    Plan,
    PlannedAttack,
    PlannedExperiment,
    Supplied,
)
from gibbon.runner.plan.selection import NAMED, Selection, default_batch_size, select
from gibbon.runner.plan.stream_names import stream_text
from gibbon.runner.progress import Progress, Silent
from gibbon.runner.settings import RunSettings
from gibbon.specs.suite import AttackSpec, Experiment, ModelSpec, Suite

IN_TURN = "attacks in turn"
BARELY = (
    "an example is done once it misleads its own model, and barely misleads it: read its transfer "
    "as a lower bound, and set keep to last or best-loss for another"
)


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
    pool = ModelPool(device, places=settings.models_in_memory)
    loader = _Loader(settings, device, pool, supplied, progress or Silent())
    experiments = tuple(
        loader.load(experiment, planned, where=key, missing=absent)
        for experiment, planned, key, absent in zip(
            suite.experiments, attacks, keys, missing, strict=True
        )
    )
    return Plan(suite, settings, device, experiments, pool)


def _plan_attack(
    spec: AttackSpec, experiment: Experiment, seed: int, *, where: str, given: Attack | None
) -> PlannedAttack:
    with their_code(f"{where}: attack {spec.name!r} can't be built"):
        attack = given if given is not None else build_attack(spec, where=where)
    if spec.carried and attack.shares is SharedWork.SEARCH:
        raise SpecError(
            f"attack {spec.name!r} looks for the nearest point once, for all epsilons: its curve "
            "never falls, and there is nothing to spare at larger ones; leave it out",
            where=f"{where}.carried",
        )
    transfer = experiment.transfer
    # Bounds are the dataset's; they are filled in once it is loaded.
    try:
        text = stream_text(attack)
        # In every list alike: another member, name or order changes no member's numbers.
        key = derive_key(seed, IN_TURN if attack.made_of else text)
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
    pool: ModelPool
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
            for cell in make_cells(spec, data_digest, models, attacks)
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
                    f"{name}, {planned.label}: {UNREADABLE}"
                    for planned in attacks
                    if not is_readable(planned.attack)
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
        self.pool.reserve()
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
        self.pool.add(model.handle)
        return model

    def _batch_sizes(self, models: Sequence[LoadedModel], dataset: Dataset) -> dict[str, BatchSize]:
        """Returns how many examples each source is given at once."""
        if self.settings.batch_size is not None:
            return {model.name: BatchSize(self.settings.batch_size, fixed=True) for model in models}
        free = free_memory(self.device)
        if free is not None and self.device.type != "cpu":  # there the models are not loaded yet
            free -= sum(model.handle.size for model in models)
        return {
            model.name: BatchSize(
                guess_batch_size(
                    default_batch_size(dataset),
                    device=self.device,
                    kept=model.kept,
                    numbers=math.prod(dataset.input_shape),
                    free=free,
                ),
                fixed=False,
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
