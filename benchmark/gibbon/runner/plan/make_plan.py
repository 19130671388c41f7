"""Makes the plan of a suite: loads and checks everything before anything is computed."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import product

import torch

from gibbon.attacks.base import STOPPING, Attack, SharedWork, can_stop, iterates_of, threats_of
from gibbon.attacks.factory import build_attack, check_adaptation
from gibbon.core.errors import (
    DatasetError,
    MissingLibraryError,
    ModelError,
    RequestError,
    SpecError,
    WeightsError,
)
from gibbon.core.registry import their_code
from gibbon.core.rng import derive_key
from gibbon.core.threat import ThreatModel
from gibbon.datasets import DataRequest
from gibbon.datasets.base import Batch, Dataset
from gibbon.datasets.input_range import looks_like_picture
from gibbon.datasets.open import check_dataset, open_dataset
from gibbon.diagnostics.budget_flags import budget_flags, small_budget_flags
from gibbon.diagnostics.data_flags import data_flags
from gibbon.diagnostics.precision_flags import changed_prediction_flags
from gibbon.models.memory import BatchSize, free_memory, guess_batch_size
from gibbon.models.sources.build import check_model
from gibbon.records.flag_share import FlagShare
from gibbon.records.flags import Flag
from gibbon.runner.device.choose_device import choose_device
from gibbon.runner.device.model_pool import ModelPool
from gibbon.runner.device.precision import Variant
from gibbon.runner.own_processes.worker import activity
from gibbon.runner.plan.cell_digest import UNREADABLE, digest_of, is_readable
from gibbon.runner.plan.draws import with_draws
from gibbon.runner.plan.gradient_advice import gradient_advice
from gibbon.runner.plan.load_model import LoadedModel, load_model
from gibbon.runner.plan.make_cells import make_cells
from gibbon.runner.plan.no_class_data import (
    check_gradients,
    check_no_class,
    noise_form,
    unlabelled,
)
from gibbon.runner.plan.planned import (
    NOTHING_SUPPLIED,
    Plan,
    PlannedAttack,
    PlannedExperiment,
    Supplied,
)
from gibbon.runner.plan.selection import (
    NAMED,
    Selection,
    default_batch_size,
    read_batches,
    select,
)
from gibbon.runner.plan.sharing import sharing
from gibbon.runner.plan.stream_names import stream_text
from gibbon.runner.plan.views import CHECKED, check_views
from gibbon.runner.run_progress.progress import SILENT, Progress
from gibbon.runner.settings import RunSettings
from gibbon.specs.suite import AttackSpec, Experiment, ModelSpec, Suite
from gibbon.verify.others_values import hold_values

STREAMS_OF_A_LIST = "attacks in turn"
LOOKED_AT = 40_000_000  # numbers: 10,000 pictures of CIFAR-10, some hundred of ImageNet
BARELY = (
    "an example is done once its own model misclassifies it, and only just does: read its transfer "
    "as a lower bound, and set keep to last or best-loss for another"
)


def make_plan(
    suite: Suite,
    settings: RunSettings,
    *,
    where: str = "",
    supplied: Supplied = NOTHING_SUPPLIED,
    progress: Progress = SILENT,
) -> Plan:
    """Returns the plan of a suite, with everything loaded and checked.

    The cheapest checks come first.  The arguments are those of `run_suite`.  Raises a
    `RequestError` for a wrong name, option, weights file, dataset, device or model.
    """
    device = choose_device(settings.device)
    checked = checked_experiments(suite, supplied, where=where)
    pool = ModelPool(device, places=settings.models_in_memory, sharing=sharing(settings, device))
    loader = PlanLoader(settings, device, pool, supplied, progress, suite.seed)
    loaded = tuple(loader.load(each) for each in checked if not each.spec.no_class)
    clean = {each.spec.dataset.name: each.dataset for each in loaded}
    without = tuple(
        loader.load_without_classes(each, suite, clean) for each in checked if each.spec.no_class
    )
    return Plan(suite, settings, device, loaded, pool, without)


@dataclass(frozen=True)
class CheckedExperiment:
    """An experiment whose names and options are right; nothing is loaded yet.

    ``missing`` maps the labels of optional attacks whose library is not installed to the reason;
    ``where`` starts the key paths in error messages.
    """

    spec: Experiment
    attacks: tuple[PlannedAttack, ...]
    missing: Mapping[str, str]
    where: str


def checked_experiments(suite: Suite, supplied: Supplied, *, where: str) -> list[CheckedExperiment]:
    """Returns the experiments of a suite, whose names and options are right.

    ``where`` is the name of the suite in error messages.  Raises a `RequestError`.
    """
    checked = []
    for index, experiment in enumerate(suite.experiments):
        prefix = "" if len(suite.experiments) == 1 else f"experiments[{index}]."
        at = f"{where or f'suite {suite.name}'}: {prefix}"
        checked.append(_check(experiment, suite.seed, supplied, where=at))
    return checked


def _check(
    experiment: Experiment, seed: int, supplied: Supplied, *, where: str
) -> CheckedExperiment:
    if experiment.dataset.name not in supplied.datasets:
        check_dataset(experiment.dataset, where=f"{where}dataset")
    for place, model in enumerate(experiment.models):
        if model.name not in supplied.models:
            check_model(model, where=f"{where}models[{place}]")
    attacks: list[PlannedAttack] = []
    missing: dict[str, str] = {}
    for place, spec in enumerate(experiment.attacks):
        given = supplied.attacks.get(spec.label)
        at = f"{where}attacks[{place}]"
        try:
            attacks.append(_plan_attack(spec, experiment, seed, where=at, given=given))
        except MissingLibraryError as error:
            if not spec.optional:
                raise
            missing[spec.label] = str(error).removeprefix(f"{at}.name: ")
    return CheckedExperiment(experiment, tuple(attacks), missing, where)


def _plan_attack(
    spec: AttackSpec, experiment: Experiment, seed: int, *, where: str, given: Attack | None
) -> PlannedAttack:
    with their_code(f"{where}: attack {spec.name!r} can't be built"):
        attack = given if given is not None else build_attack(spec, where=where)
    check_adaptation(spec, attack, where=where)
    if spec.carried and attack.shares is SharedWork.SEARCH:
        raise SpecError(
            f"attack {spec.name!r} looks for the nearest point once, for all epsilons: its curve "
            "never falls, and there is nothing to spare at larger ones; leave it out",
            where=f"{where}.carried",
        )
    transfer = experiment.transfer
    try:
        text = stream_text(attack)
        # Equal for all lists: another member, name or order changes no member's numbers.
        key = derive_key(seed, STREAMS_OF_A_LIST if attack.made_of else text)
    except SpecError as error:
        raise SpecError(str(error), where=where) from error
    if experiment.error_only and can_stop(type(attack)) and "keep" not in spec.parameters:
        # Only after the key is derived: the early stop changes no random number.
        attack = replace(attack, keep=STOPPING)  # type: ignore[type-var]
    transferred = transfer is not None and spec.label in transfer.attacks
    adaptation = spec.adaptation()
    if not attack.needs_gradient:
        adaptation = adaptation.without_gradient
    # The threat models need the bounds of the dataset, which is loaded later.
    hold_values(attack)
    return PlannedAttack(spec, attack, (), key, transferred, adaptation)


@dataclass(frozen=True)
class PlanLoader:
    """Loads and checks the datasets and models of experiments."""

    settings: RunSettings
    device: torch.device
    pool: ModelPool
    supplied: Supplied
    progress: Progress
    seed: int

    def load(self, checked: CheckedExperiment) -> PlannedExperiment:
        """Returns an experiment with its dataset, models and cells."""
        spec, where = checked.spec, checked.where
        dataset, selection = self._data(spec, where=where)
        models = self._models(spec, dataset, selection, where=where)
        attacks = tuple(
            replace(each, threats=self.threats(each, dataset)) for each in checked.attacks
        )
        _check_targets(models, attacks, where=where)
        views = self._check_views(models, attacks, selection.sample, where=where)
        left_out = _left_out(models, attacks, views, where=where)
        ids_digest = hashlib.sha256(selection.ids.astype("<i8").tobytes()).hexdigest()
        with (
            activity(self.progress, f"{where}dataset: {spec.dataset.name!r} is read"),
            their_code(f"{where}dataset: {spec.dataset.name!r} can't be read"),
        ):
            data_digest = digest_of(content=dataset.digest, ids=ids_digest)
        cells = make_cells(spec, data_digest, models, attacks)
        planned = PlannedExperiment(
            spec,
            dataset,
            selection.ids,
            models,
            attacks,
            tuple(each for each in cells if (each.source.name, each.label) not in left_out),
            self.batch_sizes(models, dataset),
            selection.skipped,
            data_digest=data_digest,
        )
        flags = [*_flags(planned, left_out, checked.missing)]
        with (
            activity(self.progress, f"{where}dataset: {dataset.name!r} is read"),
            their_code(f"{where}dataset: {dataset.name!r} can't be read"),
        ):
            flags.extend(self._data_flags(planned))
        return replace(planned, flags=tuple(flags))

    def load_without_classes(
        self, checked: CheckedExperiment, suite: Suite, clean: Mapping[str, Dataset]
    ) -> PlannedExperiment:
        """Returns an experiment on inputs without a class, with its dataset and models.

        ``clean`` holds the datasets with classes, by their names in the suite.
        """
        spec, where = checked.spec, checked.where
        against = suite.clean_experiment(spec)
        like = None if against is None else clean[against.dataset.name]
        if spec.dataset.name not in self.supplied.datasets:
            forms = {
                name: (built.classifier.input_shape, built.classifier.bounds)
                for name, built in self.supplied.models.items()
            }
            completed = noise_form(spec, like, forms, where=f"{where}dataset")
            spec = spec.model_copy(update={"dataset": completed})
        dataset, selection = self._data(spec, where=where)
        check_no_class(dataset, where=f"{where}dataset")
        models = self._models(spec, dataset, unlabelled(selection), where=where)
        if spec.fooling is not None:
            check_gradients(models, where=where)
        ids_digest = hashlib.sha256(selection.ids.astype("<i8").tobytes()).hexdigest()
        return PlannedExperiment(
            checked.spec,
            dataset,
            selection.ids,
            models,
            (),
            (),
            self.batch_sizes(models, dataset),
            selection.skipped,
            data_digest=digest_of(content=dataset.digest, ids=ids_digest),
        )

    def _models(
        self, spec: Experiment, dataset: Dataset, selection: Selection, *, where: str
    ) -> tuple[LoadedModel, ...]:
        return tuple(
            self.model(
                model,
                dataset,
                selection,
                spec.draws,
                where=f"{where}models[{place}]: {model.name!r}",
            )
            for place, model in enumerate(spec.models)
        )

    def _data_flags(self, planned: PlannedExperiment) -> Iterator[Flag]:
        """Yields the flags of the examples, of at most so many as hold `LOOKED_AT` numbers."""
        dataset, ids = planned.dataset, planned.ids
        most = max(1, LOOKED_AT // max(1, math.prod(dataset.input_shape)))
        some = ids[:: -(-len(ids) // most)]
        size = default_batch_size(dataset)
        chunks = [some[start : start + size] for start in range(0, len(some), size)]
        return data_flags(
            planned.spec.dataset.name,
            dataset.labels[ids],
            read_batches(dataset, chunks),
            classes=dataset.classes,
        )

    def threats(self, planned: PlannedAttack, dataset: Dataset) -> tuple[ThreatModel, ...]:
        """Returns the threat models of an attack on a dataset."""
        return threats_of(planned.spec, planned.attack, bounds=dataset.bounds)

    def dataset(self, spec: Experiment, *, where: str) -> Dataset:
        """Returns the dataset of an experiment.  Raises `DatasetError`."""
        wanted, settings = spec.dataset, self.settings
        dataset = self.supplied.datasets.get(wanted.name)
        if dataset is not None:
            return dataset
        request = DataRequest(
            wanted.split,
            settings.data_folder,
            settings.download,
            workers=settings.decoders,
            seed=self.seed,
        )
        with self._reading(wanted.name, where):
            return open_dataset(wanted, request)

    @contextmanager
    def _reading(self, name: str, where: str) -> Iterator[None]:
        doing = f"{where}dataset: {name!r} is opened and read"
        with (
            activity(self.progress, doing),
            their_code(f"{where}dataset: {name!r} can't be loaded"),
        ):
            yield

    def _data(self, spec: Experiment, *, where: str) -> tuple[Dataset, Selection]:
        wanted, settings = spec.dataset, self.settings
        dataset = self.dataset(spec, where=where)
        with self._reading(wanted.name, where):
            selection = select(
                dataset,
                limit=settings.limit,
                skip_unreadable=settings.skip_unreadable or wanted.skip_unreadable,
                progress=self.progress,
            )
        return dataset, selection

    def _check_views(
        self,
        models: Sequence[LoadedModel],
        attacks: Sequence[PlannedAttack],
        sample: Batch,
        *,
        where: str,
    ) -> frozenset[tuple[str, str]]:
        """Checks the adapted attacks on each model, and returns the names of these pairs.

        Raises `ModelError` if ``backward`` or ``before`` of an attack does not fit a model.
        """
        inputs = sample.inputs[:CHECKED].to(self.device)
        checked = []
        for place, planned in enumerate(attacks):
            for model in models if any(planned.views) else ():
                source = model.classifier
                if source.forward_only and planned.attack.needs_gradient:
                    continue  # no view of it has gradients
                at = f"{where}attacks[{place}]: {planned.label!r} on {model.name!r}"
                with source.evaluating(self.device):
                    check_views(planned, source, inputs, where=at)
                checked.append((model.name, planned.label))
        return frozenset(checked)

    def model(
        self,
        spec: ModelSpec,
        dataset: Dataset,
        selection: Selection,
        draws: int | None,
        *,
        where: str,
    ) -> LoadedModel:
        """Returns a model, in the pool, that passed its checks on the sample of a selection.

        ``draws`` are those of its experiment.  Raises a `RequestError`.
        """
        self.pool.reserve()
        try:
            with activity(self.progress, f"{where}: the model is loaded and tried"):
                model = load_model(
                    spec,
                    dataset=dataset,
                    sample=selection.sample,
                    device=self.device,
                    variant=Variant.of(self.settings),
                    given=self.supplied.models.get(spec.name),
                )
                inputs = selection.sample.inputs.to(self.device)
                model = with_draws(model, inputs, draws=draws, seed=self.seed)
        except RequestError as error:
            own = isinstance(error, WeightsError | DatasetError)
            kind = type(error) if own else ModelError
            raise kind(f"{where}: {error}") from error
        self.pool.add(model.handle)
        return model

    def batch_sizes(self, models: Sequence[LoadedModel], dataset: Dataset) -> dict[str, BatchSize]:
        """Returns the batch size of each source, by name."""
        if self.settings.batch_size is not None:
            return {model.name: BatchSize(self.settings.batch_size, fixed=True) for model in models}
        free = free_memory(self.device)
        if free is not None and self.device.type != "cpu":  # there the models are not loaded yet
            free -= sum(model.handle.size for model in models)
        if free is not None:
            free //= sharing(self.settings, self.device)
        return {
            model.name: BatchSize(
                guess_batch_size(
                    default_batch_size(dataset),
                    device=self.device,
                    kept=model.probed.kept,
                    numbers=math.prod(dataset.input_shape),
                    free=free,
                ),
                fixed=False,
            )
            for model in models
        }


def _check_targets(
    models: Sequence[LoadedModel], attacks: Sequence[PlannedAttack], *, where: str
) -> None:
    """Raises `SpecError` if an attack's fixed target is no class of a model."""
    for place, planned in enumerate(attacks):
        target = getattr(planned.attack, "target", None)
        if not isinstance(target, int):
            continue
        for model in models:
            if target >= model.card.classes:
                raise SpecError(
                    f"class {target} is no class of model {model.name!r}, whose classes are 0 to "
                    f"{model.card.classes - 1}",
                    where=f"{where}attacks[{place}].target",
                )


def _left_out(
    models: Sequence[LoadedModel],
    attacks: Sequence[PlannedAttack],
    views: Collection[tuple[str, str]],
    *,
    where: str,
) -> dict[tuple[str, str], str]:
    """Returns the reasons why models are not sources of attacks, by the names of both.

    A model without gradients is only a target of attacks that need them, unless the attack sees
    another view of it, which has gradients: ``views`` holds the names of such pairs.  Raises
    `ModelError` if such an attack is not transferred, or if there is no model with gradients.
    """
    left_out = {}
    others = any(not model.probed.forward_only for model in models)
    for place, model in enumerate(models):
        for planned in attacks:
            if not model.probed.forward_only or not planned.attack.needs_gradient:
                continue
            if (model.name, planned.label) in views:
                continue
            if not (planned.transferred and others):
                raise ModelError(
                    f"{where}models[{place}]: {model.name!r}: {model.probed.forward_only}: attack "
                    f"{planned.label!r} needs them; name the attack under transfer and add a model "
                    "with gradients to make the examples on, or take an attack that needs none, "
                    f"such as noise-sign{gradient_advice(model.classifier.module)}"
                )
            left_out[model.name, planned.label] = model.probed.forward_only
    return left_out


def _flags(
    experiment: PlannedExperiment,
    left_out: Mapping[tuple[str, str], str],
    missing: Mapping[str, str],
) -> Iterator[Flag]:
    dataset, skipped = experiment.spec.dataset.name, experiment.skipped
    if skipped:
        count, total = len(skipped), len(experiment.ids) + len(skipped)
        more = f"; and {count - NAMED} more" if count > NAMED else ""
        yield Flag(
            kind="examples-left-out",
            dataset=dataset,
            share=FlagShare(count=count, of=total),
            sentence=f"{count} of {total} examples can't be read and were left out: "
            f"{'; '.join(skipped[:NAMED])}{more}",
        )
    for loaded in experiment.models:
        yield from changed_prediction_flags(dataset, loaded.name, loaded.card.change)
    for attack, reason in missing.items():
        sentence = f"the optional attack was not run: {reason}"
        yield Flag(kind="attack-left-out", dataset=dataset, attack=attack, sentence=sentence)
    for (model, attack), reason in left_out.items():
        yield Flag(
            kind="target-only",
            dataset=dataset,
            model=model,
            attack=attack,
            sentence=f"no examples are made on it, only on the others: {reason}",
        )
    for planned in experiment.attacks:
        yield from budget_flags(dataset, planned.label, planned.threats)
        if looks_like_picture(experiment.dataset.input_shape):
            yield from small_budget_flags(dataset, planned.label, planned.threats)
        about = {"dataset": dataset, "attack": planned.label}
        if planned.transferred and STOPPING in iterates_of(planned.attack):
            yield Flag(kind="stopped-early", sentence=BARELY, **about)
        if not is_readable(planned.attack):
            yield Flag(kind="unreadable-code", sentence=UNREADABLE, **about)
    for source, planned in product(experiment.models, experiment.attacks):
        if (source.name, planned.label) not in left_out:
            for caveat in planned.attack.caveats(source.card.classes):
                yield Flag(
                    kind="departs-from-paper",
                    dataset=dataset,
                    model=source.name,
                    attack=planned.label,
                    sentence=caveat,
                )
