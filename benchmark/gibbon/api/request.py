"""Conversion of the arguments of `evaluate` into a suite and the objects supplied with it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal, TypedDict, cast

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from gibbon.attacks.base import Attack, parameters_of
from gibbon.attacks.factory import build_attack, check_adaptation
from gibbon.attacks.toolkit.parameter_text import parameter_texts
from gibbon.core.errors import DatasetError, ModelError, RequestError, SpecError
from gibbon.core.files import StrPath
from gibbon.core.plain_text import shown
from gibbon.core.threat import Bounds, Epsilon
from gibbon.datasets import DataRequest
from gibbon.datasets.base import Dataset
from gibbon.datasets.open import bounds_of, open_dataset
from gibbon.datasets.without_classes import WithoutClasses
from gibbon.datasets.wrap import adopt_data, with_placeholders
from gibbon.models.classifier import Classifier
from gibbon.models.sources import BuiltModel
from gibbon.models.sources.build import build_model, fuse_models, members_of
from gibbon.models.sources.wrap_module import adopt_model
from gibbon.records.acceptance import check_kinds
from gibbon.runner.plan.no_class_data import Form, noise_form
from gibbon.runner.plan.planned import Supplied
from gibbon.runner.settings import RunSettings
from gibbon.specs.decoding import WHERE, decode_request
from gibbon.specs.naming import RUBBISH, label_from, name_from, name_of, unlike
from gibbon.specs.suite import THRESHOLD, AttackSpec, DatasetSpec, Direction, ModelSpec, Suite

Model = nn.Module | Classifier | ModelSpec | StrPath
Array = Tensor | NDArray[Any]
Data = (
    TorchDataset[Any]
    | DataLoader[Any]
    | tuple[Array, Array]
    | Array
    | Dataset
    | DatasetSpec
    | StrPath
)
AttackLike = str | Mapping[str, Any] | Attack | AttackSpec
_ONE_ATTACK = (str, Mapping, Attack, AttackSpec)  # the kinds of `AttackLike`
Budget = float | str | Epsilon
_ATTACKS = (
    'must be an attack\'s name, a mapping such as {"name": "pgd", "steps": 20}, an Attack, an '
    "AttackSpec, or a list of these"
)
DESCRIBED = (str, os.PathLike, ModelSpec)  # forms of a model that are not the model itself


class _InputForm(TypedDict):
    """Shape and bounds of one input."""

    input_shape: tuple[int, ...]
    bounds: Bounds


@dataclass(frozen=True)
class NoClassArguments:
    """Arguments of `evaluate` that concern inputs without a class."""

    classes: Literal["none"] | None = None
    count: int | None = None
    against: Data | None = None
    threshold: float = THRESHOLD
    fooling: Budget | None = None
    direction: Direction = "sign"
    shape: Sequence[int] | None = None

    def check_no_attack(self, data: Data) -> None:
        """Raises `SpecError` if the data have classes, so that an attack is missing."""
        if self.classes is not None or _is_no_class(data):
            return
        raise SpecError(
            'missing: attack="pgd", or attack=[] for the clean error alone; inputs without a '
            'class, which need no attack, are declared by classes="none"'
        )

    @property
    def of_dataset(self) -> dict[str, Any]:
        """The keys that a dataset's spec takes."""
        shape = None if self.shape is None else tuple(self.shape)
        given = {"classes": self.classes, "count": self.count, "shape": shape}
        return {key: value for key, value in given.items() if value is not None}

    @property
    def of_experiment(self) -> dict[str, Any]:
        """The keys that the experiment takes."""
        found: dict[str, Any] = {"threshold": self.threshold}
        if self.fooling is not None:
            step = Epsilon.parse(self.fooling, where="fooling")
            found["fooling"] = {"step": step, "direction": self.direction}
        return found


NO_QUESTION = NoClassArguments()


def _is_no_class(data: Data) -> bool:
    """Returns whether a data source always yields inputs without a class."""
    if isinstance(data, DatasetSpec):
        return data.no_class
    if isinstance(data, Dataset):
        return data.info.no_class
    return isinstance(data, str) and data.startswith(RUBBISH)


@dataclass(frozen=True)
class PythonRequest:
    """A request made in Python: a suite, and the models, data and attacks given as objects.

    ``against`` holds the data that confidences are compared with, if they are given as objects.
    """

    suite: Suite
    models: Mapping[str, nn.Module | Classifier]
    data: Any
    attacks: Mapping[str, Attack]
    against: Any = None

    @classmethod
    def of(
        cls,
        models: Mapping[str, Model],
        data: Data,
        attacks: Sequence[AttackLike],
        *,
        epsilon: tuple[Epsilon, ...],
        threat: Mapping[str, Any],
        parameters: Mapping[str, Any],
        declared: Mapping[str, Any],
        experiment: Mapping[str, Any],
        accept: Sequence[str],
        transfer: bool,
        bounds: Sequence[float] | None = None,
        question: NoClassArguments = NO_QUESTION,
    ) -> PythonRequest:
        """Returns the request that a call's arguments make.  Raises a `RequestError`."""
        if "attacks" in parameters:
            raise SpecError(
                "attacks: there is no such argument: give attack, which may be a list of attacks"
            )
        if parameters and (len(attacks) != 1 or isinstance(attacks[0], Attack)):
            raise SpecError(
                f"{', '.join(parameters)}: parameters belong to one attack by name; put them into "
                'its mapping: {"name": "pgd", "steps": 20}'
            )
        common = {key: value for key, value in threat.items() if value is not None}
        written = [{"epsilon": epsilon, **common, **_attack_keys(each)} for each in attacks]
        labels = unlike([str(each.get("label", label_from(each["name"]))) for each in written])
        for keys, label in zip(written, labels, strict=True):
            if not keys["epsilon"]:
                raise SpecError(f"attack {label!r}: epsilon is missing: give epsilon=8 / 255")
            keys |= {**parameters, "label": label}
        if models and all(isinstance(each, Tensor) for each in models.values()):
            raise ModelError(
                f"model: got tensors by name ({', '.join([*models][:2])}, …), a state dict: load "
                "it into its module, net.load_state_dict(...), and give the module"
            )
        described = [{**model_keys(each, declared), "name": name} for name, each in models.items()]
        if isinstance(data, Dataset) and data.info.no_class:
            question = replace(question, classes="none")
        dataset = _with(in_bounds(dataset_spec(data), bounds), question.of_dataset)
        against = question.against
        request = {"dataset": dataset, "models": described, "attacks": written}
        request |= question.of_experiment
        suite = decode_request(
            {**experiment, **request, "accept": accept},
            transfer=transfer,
            against=None if against is None else _compared(against, bounds),
        )
        check_kinds(suite.accept, where=WHERE)
        given = zip(labels, attacks, strict=True)
        return cls(
            suite,
            {name: each for name, each in models.items() if not isinstance(each, DESCRIBED)},
            None if isinstance(data, str | DatasetSpec) else data,
            {label: attack for label, attack in given if isinstance(attack, Attack)},
            None if isinstance(against, str | os.PathLike | DatasetSpec) else against,
        )

    def supplied(self, settings: RunSettings) -> Supplied:
        """Returns the objects that the plan takes as they are; the attacks are checked here.

        Raises a `RequestError`.
        """
        *clean, experiment = self.suite.experiments
        for attack in experiment.attacks:
            _check_attack(attack, self.attacks.get(attack.label))
        if self.data is None and self.against is None and not self.models:
            return Supplied(attacks=self.attacks)
        datasets = {
            each.dataset.name: self._dataset(each.dataset, self.against, settings) for each in clean
        }
        like = next(iter(datasets.values()), None)
        described = experiment.dataset
        if self.data is None and experiment.no_class:
            described = noise_form(experiment, like, self._forms, where="data")
        dataset = self._dataset(described, self.data, settings)
        datasets[described.name] = dataset
        own = {spec.name: spec for spec in experiment.models if spec.name in self.models}
        adopted: dict[str, BuiltModel] = {}
        form: _InputForm = {"input_shape": dataset.input_shape, "bounds": dataset.bounds}
        for name, spec in own.items():
            with _naming(spec):
                adopted[name] = adopt_model(self.models[name], spec=spec, **form)
        for spec in experiment.models:
            if any(member in own.values() for member in spec.ensemble):
                with _naming(spec):
                    members = [
                        adopted[member.name]
                        if own.get(member.name) == member
                        else build_model(completed, **form)
                        for member, completed in zip(spec.ensemble, members_of(spec), strict=True)
                    ]
                    adopted[spec.name] = fuse_models(spec, members)
        return Supplied(adopted, datasets, self.attacks)

    @property
    def _forms(self) -> dict[str, Form | None]:
        """Shape and bounds of the inputs of the models; None for a module, which has none."""
        return {
            name: (each.input_shape, each.bounds) if isinstance(each, Classifier) else None
            for name, each in self.models.items()
        }

    def _dataset(self, spec: DatasetSpec, data: Any, settings: RunSettings) -> Dataset:
        if data is not None:
            given = with_placeholders(data) if spec.no_class else data
            adopted = adopt_data(given, name=spec.name, bounds=bounds_of(spec))
            bare = spec.no_class and not adopted.info.no_class
            return WithoutClasses(adopted) if bare else adopted
        request = DataRequest(
            spec.split,
            settings.data_folder,
            settings.download,
            workers=settings.decoders,
            seed=self.suite.seed,
        )
        return open_dataset(spec, request)


@contextmanager
def _naming(spec: ModelSpec) -> Iterator[None]:
    """Prefixes errors of a ``with`` block with the model's name."""
    try:
        yield
    except DatasetError as error:
        raise DatasetError(f"dataset, for model {spec.name!r}: {error}") from error
    except RequestError as error:
        raise ModelError(f"model {spec.name!r}: {error}") from error


def _check_attack(spec: AttackSpec, given: Attack | None) -> None:
    check_adaptation(spec, build_attack(spec) if given is None else given)
    if given is not None and spec.norm is not None and spec.norm not in given.norms:
        raise SpecError(
            f"attack {spec.label!r} works in {', '.join(given.norms)}, not in {spec.norm}"
        )


def attack_list(given: AttackLike | Iterable[AttackLike]) -> list[AttackLike]:
    """Returns the attacks of a call.  Raises `SpecError` if one is neither named nor an attack."""
    several = isinstance(given, Iterable) and not isinstance(given, (*_ONE_ATTACK, type))
    attacks = [*cast("Iterable[AttackLike]", given)] if several else [cast("AttackLike", given)]
    for each in attacks:
        if not isinstance(each, _ONE_ATTACK):
            raise SpecError(
                f"{_ATTACKS}, got {shown(each)}{_attack_cure(each)}",
                where="attack",
            )
    return attacks


def _attack_cure(given: object) -> str:
    if isinstance(given, type) and issubclass(given, Attack):
        return f": an attack is an instance: {given.__name__}()"
    return ": write it as a subclass of gibbon.Attack" if callable(given) else ""


def _attack_keys(attack: AttackLike) -> dict[str, Any]:
    """Returns the keys of an attack's spec: its name and its parameters."""
    if isinstance(attack, str):
        return {"name": attack}
    if isinstance(attack, AttackSpec):
        return {key: value for key, value in attack if key in attack.model_fields_set}
    if isinstance(attack, Attack):
        texts = parameter_texts(attack)
        own = {
            key: value if isinstance(value, bool | int | float | str) else texts[key]
            for key, value in parameters_of(attack).items()
            if key not in AttackSpec.model_fields
        }
        # Attacks are named in lower case with hyphens: ``NoiseSign`` is ``noise-sign``.
        name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", type(attack).__name__).lower()
        return {**own, "name": name}
    if "name" not in attack:
        raise SpecError('an attack as a mapping needs its name: {"name": "pgd", "steps": 20}')
    return dict(attack)


def model_keys(model: Model, declared: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the keys of a model's spec; its own keys take precedence over ``declared``."""
    if isinstance(model, ModelSpec):
        own = {key: value for key, value in model if value not in (None, False, (), {})}
    elif isinstance(model, str | os.PathLike):
        own = {"model": os.fspath(model)}
    else:
        own = {"model": model_name(model)}
    return {**{key: value for key, value in declared.items() if value is not None}, **own}


def model_name(model: Model) -> str:
    """Returns the default name of a model: that of its source or its class."""
    if isinstance(model, ModelSpec):
        return model.name
    if isinstance(model, str | os.PathLike):
        return name_of(os.fspath(model))
    module = model.module if isinstance(model, Classifier) else model
    return name_from(type(module).__name__) or "model"


def dataset_spec(data: Data) -> DatasetSpec | dict[str, str]:
    """Returns the spec of data, or its keys; data that are objects are named after their class."""
    if isinstance(data, DatasetSpec):
        return data
    if isinstance(data, str):
        return {"name": name_of(data), "source": data}
    held: object = data.dataset if isinstance(data, DataLoader) else data
    name = held.name if isinstance(held, Dataset) else type(held).__name__
    bare = isinstance(held, tuple | list | Tensor | np.ndarray)
    name = "data" if bare else name_from(name) or "data"
    return DatasetSpec(name=name, source=name)


def _with(
    dataset: DatasetSpec | dict[str, Any], keys: Mapping[str, Any]
) -> DatasetSpec | dict[str, Any]:
    """Returns a dataset's spec with more keys, which replace its own."""
    if not keys:
        return dataset
    own = dict(dataset) if isinstance(dataset, DatasetSpec) else dataset
    return {**own, **keys}


def _compared(against: Data, bounds: Sequence[float] | None) -> DatasetSpec | dict[str, Any]:
    """Returns the spec of the data that confidences are compared with.

    Objects of both have the same bounds; those of a source are its own.
    """
    given = os.fspath(against) if isinstance(against, os.PathLike) else against
    described = isinstance(given, str | DatasetSpec)
    return in_bounds(dataset_spec(given), None if described else bounds)


def in_bounds(
    dataset: DatasetSpec | dict[str, str], bounds: Sequence[float] | None
) -> DatasetSpec | dict[str, Any]:
    """Returns a dataset's spec with the bounds of its inputs.  Raises `SpecError`."""
    if bounds is None:
        return dataset
    try:
        low, high = (float(each) for each in bounds)
    except (TypeError, ValueError):
        raise SpecError(
            "must be the lowest and the highest value of all inputs, such as (-3, 3), got "
            f"{bounds!r}; columns of different ranges: scale each to one range first",
            where="bounds",
        ) from None
    own = dict(dataset) if isinstance(dataset, DatasetSpec) else dataset
    return {**own, "bounds": (low, high)}


def parse_budgets(epsilon: Budget | Sequence[Budget] | None) -> tuple[Epsilon, ...]:
    """Returns one or more budgets as exact epsilons.  Raises `SpecError` if one is no number."""
    if epsilon is None:
        return ()
    several = [epsilon] if isinstance(epsilon, str | float | int | Epsilon) else epsilon
    return tuple(Epsilon.parse(each, where="epsilon") for each in several)
