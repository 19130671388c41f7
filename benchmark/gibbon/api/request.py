"""Conversion of the arguments of `evaluate` into a suite and the objects supplied with it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from gibbon.attacks.base import Attack, parameters_of
from gibbon.attacks.factory import build_attack
from gibbon.attacks.toolkit.parameter_text import parameter_texts
from gibbon.core.errors import ModelError, RequestError, SpecError
from gibbon.core.threat import Epsilon
from gibbon.datasets import DataRequest
from gibbon.datasets.base import Dataset
from gibbon.datasets.open import open_dataset
from gibbon.datasets.wrap import adopt_data
from gibbon.models.classifier import Classifier
from gibbon.models.sources import BuiltModel
from gibbon.models.sources.build import build_model, fuse_models, members_of
from gibbon.models.sources.wrap import adopt_model
from gibbon.runner.plan.cell import Supplied
from gibbon.runner.settings import RunSettings
from gibbon.specs.decoding import decode_suite
from gibbon.specs.naming import (
    WHERE,
    label_from,
    name_from,
    name_of,
    suite_name,
    transferable,
    unlike,
)
from gibbon.specs.suite import AttackSpec, DatasetSpec, ModelSpec, Suite

T = TypeVar("T")
Place = str | os.PathLike[str]
Written = nn.Module | Classifier | ModelSpec | str
Model = Written | os.PathLike[str]
Array = Tensor | NDArray[Any]
Data = TorchDataset[Any] | DataLoader[Any] | tuple[Array, Array] | Dataset | DatasetSpec | Place
AttackLike = str | Mapping[str, Any] | Attack
Budget = float | str | Epsilon


@dataclass(frozen=True)
class _Asked:
    """A request: the suite that it is, and what was given as objects."""

    suite: Suite
    models: Mapping[str, nn.Module | Classifier]
    data: Any
    attacks: Mapping[str, Attack]

    @classmethod
    def of(
        cls,
        models: Mapping[str, Written],
        data: Data,
        attacks: Sequence[AttackLike],
        *,
        budgets: Sequence[Budget],
        parameters: Mapping[str, Any],
        threat: Mapping[str, Any],
        normalised: Mapping[str, Any],
        transfer: bool,
        error_only: bool,
        seed: int,
    ) -> _Asked:
        """Returns the request of a call's arguments.  Raises a `RequestError`."""
        written = [_attack_spec(each, threat) for each in attacks]
        if parameters and (len(attacks) != 1 or isinstance(attacks[0], Attack)):
            raise SpecError(
                f"{', '.join(parameters)}: parameters belong to one attack by name; put them into "
                'its mapping: {"name": "pgd", "steps": 20}'
            )
        labels = unlike([str(each.get("label", label_from(each["name"]))) for each in written])
        for spec, label in zip(written, labels, strict=True):
            spec.update({"epsilon": budgets, **spec, **parameters, "label": label})
            if not spec["epsilon"]:
                raise SpecError(f"attack {label!r}: epsilon is missing: give epsilon=8 / 255")
        dataset = _data_spec(data)
        specs = [_model_spec(name, model, normalised) for name, model in models.items()]
        crossed = transferable(written, models=len(specs), error_only=error_only)
        crossed = crossed if transfer else []
        suite = decode_suite(
            {
                "name": suite_name(dataset["name"], [each["name"] for each in specs]),
                "dataset": dataset,
                "models": specs,
                "attacks": written,
                "seed": seed,
                "error_only": error_only,
                **({"transfer": {"attacks": crossed}} if crossed else {}),
            },
            where=WHERE,
        )
        instances = {
            label: attack
            for label, attack in zip(labels, attacks, strict=True)
            if isinstance(attack, Attack)
        }
        given = {
            name: model for name, model in models.items() if not isinstance(model, str | ModelSpec)
        }
        return cls(suite, given, None if isinstance(data, str | DatasetSpec) else data, instances)

    def supplied(self, settings: RunSettings) -> Supplied:
        """Returns what the plan takes as it is, the attacks having been checked.

        Raises a `RequestError`.
        """
        (experiment,) = self.suite.experiments
        for spec in experiment.attacks:
            _check_attack(spec, self.attacks.get(spec.label))
        if self.data is None and not self.models:
            return Supplied(attacks=self.attacks)
        dataset = self._dataset(experiment.dataset, settings)
        adopted = {
            spec.name: self._adopted(spec, dataset)
            for spec in experiment.models
            if spec.name in self.models
        }
        held = [spec for spec in experiment.models if spec.name in adopted]
        fused = {
            spec.name: self._fused(spec, held, adopted, dataset)
            for spec in experiment.models
            if any(member in held for member in spec.ensemble)
        }
        adopted.update(fused)
        return Supplied(adopted, {experiment.dataset.name: dataset}, self.attacks)

    def _dataset(self, spec: DatasetSpec, settings: RunSettings) -> Dataset:
        if self.data is not None:
            return adopt_data(self.data, name=spec.name)
        request = DataRequest(
            spec.split, settings.data_folder, settings.download, workers=settings.workers
        )
        return open_dataset(spec, request)

    def _adopted(self, spec: ModelSpec, dataset: Dataset) -> BuiltModel:
        try:
            return adopt_model(self.models[spec.name], spec=spec, input_shape=dataset.input_shape)
        except RequestError as error:
            raise ModelError(f"model {spec.name!r}: {error}") from error

    def _fused(
        self,
        spec: ModelSpec,
        held: Sequence[ModelSpec],
        adopted: Mapping[str, BuiltModel],
        dataset: Dataset,
    ) -> BuiltModel:
        """Returns an ensemble of which some members are models of this call."""
        try:
            members = [
                adopted[each.name]
                if each in held
                else build_model(completed, input_shape=dataset.input_shape)
                for each, completed in zip(spec.ensemble, members_of(spec), strict=True)
            ]
            return fuse_models(spec, members)
        except RequestError as error:
            raise ModelError(f"model {spec.name!r}: {error}") from error


def _check_attack(spec: AttackSpec, given: Attack | None) -> None:
    if given is None:
        build_attack(spec)
    elif spec.norm is not None and spec.norm not in given.norms:
        raise SpecError(
            f"attack {spec.label!r} works in {', '.join(given.norms)}, not in {spec.norm}"
        )


def _attack_spec(attack: AttackLike, threat: Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(attack, str):
        return {**threat, "name": attack}
    if isinstance(attack, Attack):
        texts = parameter_texts(attack)
        own = {
            key: value if isinstance(value, bool | int | float | str) else texts[key]
            for key, value in parameters_of(attack).items()
            if key not in AttackSpec.model_fields
        }
        return {**threat, **own, "name": _in_words(type(attack).__name__)}
    if "name" not in attack:
        raise SpecError('an attack as a mapping needs its name: {"name": "pgd", "steps": 20}')
    return {**threat, **attack}


def _model_spec(name: str, model: Written, normalised: Mapping[str, Any]) -> dict[str, Any]:
    said = {key: value for key, value in normalised.items() if value is not None}
    if isinstance(model, ModelSpec):
        return {**said, **model.model_dump(exclude_none=True), "name": name}
    if isinstance(model, str):
        return {**said, "name": name, "model": model}
    module = model.module if isinstance(model, Classifier) else model
    return {**said, "name": name, "model": name_from(type(module).__name__) or "model"}


def _data_spec(data: Data) -> dict[str, Any]:
    if isinstance(data, DatasetSpec):
        dumped = data.model_dump(exclude_none=True)
        return {"name": data.name, "source": data.source} if isinstance(dumped, str) else dumped
    if isinstance(data, str):
        return {"name": name_of(data), "source": data}
    held: object = data.dataset if isinstance(data, DataLoader) else data
    name = held.name if isinstance(held, Dataset) else type(held).__name__
    name = "data" if isinstance(held, tuple | list) else name_from(name) or "data"
    return {"name": name, "source": name}


def _written(given: T | os.PathLike[str]) -> T | str:
    """Returns it with a path as text, which is what a source is."""
    return os.fspath(given) if isinstance(given, os.PathLike) else given


def _name_of(model: Model) -> str:
    if isinstance(model, ModelSpec):
        return model.name
    if isinstance(model, str | os.PathLike):
        return name_of(os.fspath(model))
    module = model.module if isinstance(model, Classifier) else model
    return name_from(type(module).__name__) or "model"


def _listed(budgets: Budget | Sequence[Budget] | None) -> Sequence[Budget]:
    if budgets is None:
        return []
    return [budgets] if isinstance(budgets, str | float | int | Epsilon) else list(budgets)


def _in_words(name: str) -> str:
    """Returns a class's name as attacks are called: ``NoiseSign`` is ``noise-sign``."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", name).lower()
