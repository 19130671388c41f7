"""The Python call: a model, data and an attack in, typed results out.

`evaluate` makes a suite of what it is given and runs it as the command line would: the same
checks, the same numbers, the same tables.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from benchmark.asking import WHERE, name_of, suite_name, transferable, unlike
from benchmark.attacks.base import Attack, build_attack, parameters_of
from benchmark.attacks.parameters import parameter_texts
from benchmark.classifier import Classifier
from benchmark.datasets import DataRequest
from benchmark.datasets.adopting import adopt_data
from benchmark.datasets.base import Dataset
from benchmark.datasets.sources import open_dataset
from benchmark.errors import CellError, ModelError, RequestError, SpecError, UnknownNameError
from benchmark.fitting import with_preprocessing
from benchmark.records import Evaluation, Failure, RunRecord, Transfer
from benchmark.report import write_report
from benchmark.report.html_tables import chapters_html
from benchmark.report.terminal import print_chapters, short_chapters
from benchmark.runner.plan import RunSettings, Supplied, choose_device
from benchmark.runner.progress import Progress, Silent
from benchmark.runner.run import run_suite
from benchmark.runner.store import OUTCOMES, Outcome, read_outcome
from benchmark.showing import RunProgress
from benchmark.sources import BuiltModel
from benchmark.sources.adopting import adopt_model
from benchmark.sources.building import build_model, fuse_models, members_of
from benchmark.specs import (
    UNATTACKED,
    AttackSpec,
    DatasetSpec,
    Experiment,
    ModelSpec,
    Suite,
    TransferSpec,
    decode_suite,
    label_from,
    name_from,
)
from benchmark.threat import Epsilon, Norm

if TYPE_CHECKING:
    import pandas as pd

T = TypeVar("T")
Place = str | os.PathLike[str]
Written = nn.Module | Classifier | ModelSpec | str
Model = Written | os.PathLike[str]
Array = Tensor | NDArray[Any]
Data = TorchDataset[Any] | DataLoader[Any] | tuple[Array, Array] | Dataset | DatasetSpec | Place
AttackLike = str | Mapping[str, Any] | Attack
Budget = float | str | Epsilon
NAMED = 5  # of many rows, an error names so many


def evaluate(
    model: Model | Mapping[str, Model],
    data: Data,
    *,
    attack: AttackLike | Sequence[AttackLike],
    epsilon: Budget | Sequence[Budget] | None = None,
    norm: Norm | Literal["linf", "l2", "l1"] | None = None,
    clip: bool = True,
    transfer: bool = True,
    error_only: bool = False,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    outputs: Literal["logits", "probabilities", "log-scores"] | None = None,
    seed: int = 0,
    device: torch.device | str = "auto",
    batch_size: int | Literal["auto"] = "auto",
    precision: Literal["float32", "bfloat16"] = "float32",
    compile: bool = False,  # noqa: A002  # as it is called everywhere else
    limit: int | None = None,
    output: Place | None = None,
    progress: Progress | bool = False,
    **parameters: Any,
) -> Results:
    """Returns how a model does on data, as it is and under attack.

    Args:
        model: a torch module, a `Classifier`, a source such as ``"torchvision:resnet50"`` or a
            path, a `ModelSpec`, or several of these by name, among which ``"ensemble:one,two"`` is
            made of those called so.  A module takes inputs of shape (N, *input_shape) in the bounds
            of the data, [0, 1] for pictures.
        data: a torch ``Dataset`` of (input, label), a ``DataLoader`` of batches of these, a pair
            of tensors (inputs, labels), a `Dataset` of ours, a `DatasetSpec`, or a source such as
            ``"mnist"`` or a folder of pictures.
        attack: an attack's name, a mapping such as ``{"name": "pgd", "steps": 20}``, an `Attack`,
            or a list of these.
        epsilon: one or more budgets in the units of the input, such as ``8 / 255``, ``"8/255"`` or
            ``[0.1, 0.25]``; for every attack whose mapping does not say its own.
        norm: of the budget; the attack's own first norm if None.
        clip: whether adversarial examples stay in the bounds of the data.
        transfer: whether several models are scored on each other's adversarial examples.
        error_only: whether errors are all that is asked for: attacks stop at an example's first
            success, which is faster; there is no confidence then, and no transfer.
        mean: with ``std``, the normalisation that goes in front of every model: (x - mean) / std,
            a number a channel.
        std: see ``mean``.
        outputs: what the outputs of a module mean; logits unless it is said.
        seed: of every random number.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``, or a torch device.
        batch_size: examples in one pass; changes no result.
        precision: what the models compute in.
        compile: whether models go through ``torch.compile``.
        limit: take a fixed sample of this many examples.
        output: a folder that keeps what ``run_benchmark.py evaluate`` writes, and in which a call
            that is interrupted goes on; a temporary one otherwise.
        progress: whether to show how far the work is, on stderr; or what is told of it.
        **parameters: the attack's own parameters, such as ``steps=20``, where there is one attack.

    The model comes back as it was, also after an exception: mode, ``requires_grad``, device, hooks.
    Adversarial examples themselves are not kept, only what became of them, example by example
    (`Results.examples`).  An attack or a model that raises while it is measured makes a failed
    cell, which is in `Results.failures` and in the tables; its numbers raise `CellError`.

    Raises a `RequestError` where the request is wrong, before anything is computed.

    >>> inputs, labels = torch.rand(40, 1, 4, 4), torch.arange(40) % 3
    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    >>> results = evaluate(net, (inputs, labels), attack="pgd", epsilon=8 / 255, steps=4)
    >>> results.adversarial_error >= results.clean_error
    True
    >>> results.to_frame()[["attack", "epsilon", "examples"]].to_dict("list")
    {'attack': ['none', 'pgd'], 'epsilon': ['0', '8/255'], 'examples': [40, 40]}
    """
    models = model if isinstance(model, Mapping) else {_name_of(model): model}
    asked = _Asked.of(
        {name: _written(each) for name, each in models.items()},
        _written(data),
        [attack] if isinstance(attack, str | Mapping | Attack) else attack,
        budgets=_listed(epsilon),
        parameters=parameters,
        threat={"norm": norm, "clip": clip},
        normalised={"mean": mean, "std": std, "outputs": outputs},
        transfer=transfer,
        error_only=error_only,
        seed=seed,
    )
    choose_device(str(device), where="device")
    if batch_size != "auto" and batch_size < 1:
        raise SpecError(f'must be "auto" or at least 1, got {batch_size}', where="batch_size")
    settings = RunSettings(
        device=str(device),
        batch_size=None if batch_size == "auto" else batch_size,
        precision=precision,
        compile=compile,
        limit=limit,
    )
    suite, supplied = asked.suite, asked.supplied(settings)
    with _folder(output) as folder, _told(progress) as teller:
        if not supplied.datasets:
            suite, notes = with_preprocessing(suite)
            for note in notes:
                teller.note(note)
        record = run_suite(
            suite,
            folder,
            settings=settings,
            where=WHERE,
            supplied=supplied,
            progress=teller,
            publish=write_report if output is not None else None,
        )
        read = {
            row.digest: read_outcome(folder / OUTCOMES, row.digest) for row in record.evaluations
        }
    return Results(record, {digest: found for digest, found in read.items() if found is not None})


@dataclass(frozen=True)
class Examples:
    """What became of each example under one attack at one epsilon; every array has shape (N,).

    Args:
        example_id: int64: the example's position in the data.
        label: int32: the true class.
        clean_predicted: int32: the class predicted unattacked.
        predicted: int32: the class predicted for the adversarial example.
        confidence: float32: the model's probability for that class.
        distance: float32: how far the adversarial example is from the input, in the attack's norm.
        misclassified: bool: it stays within the budget and the bounds, and is misclassified.
    """

    example_id: NDArray[np.int64]
    label: NDArray[np.int32]
    clean_predicted: NDArray[np.int32]
    predicted: NDArray[np.int32]
    confidence: NDArray[np.float32]
    distance: NDArray[np.float32]
    misclassified: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.example_id)

    def to_frame(self) -> pd.DataFrame:
        """Returns the same as pandas, a row an example."""
        import pandas as pd

        return pd.DataFrame(vars(self))


@dataclass(frozen=True, eq=False, repr=False)
class Results:
    """What was measured: rows by model, attack and epsilon, and what became of each example.

    Args:
        record: everything that ``run.json`` holds: rows, flags, failures, where they come from.
        outcomes: what came of each cell, example by example, by the cell's digest.

    Printed, they are the tables of the command line; a notebook shows them as HTML.
    """

    record: RunRecord
    outcomes: Mapping[str, Outcome]

    @property
    def evaluations(self) -> tuple[Evaluation, ...]:
        """A row for each model unattacked, and for each model, attack and epsilon."""
        return self.record.evaluations

    @property
    def transfers(self) -> tuple[Transfer, ...]:
        """A row for each source, target, attack and epsilon, where there are several models."""
        return self.record.transfers

    @property
    def failures(self) -> tuple[Failure, ...]:
        """What raised instead of being measured."""
        return self.record.failures

    @property
    def clean_error(self) -> float:
        """Share of the examples that the one model misclassifies unattacked.

        Raises `SpecError` where there are several models, `CellError` where it failed.
        """
        row = self._only([row for row in self.evaluations if row.unattacked], "models")
        return _known(row.clean_error)

    @property
    def adversarial_error(self) -> float:
        """Share of all examples that are misclassified under the one attack at the one epsilon.

        Raises `SpecError` where there are several, `CellError` where it failed.
        """
        return _known(self._attacked.adversarial_error)

    @property
    def confidence_on_misclassified(self) -> float | None:
        """Mean confidence over the misclassified adversarial examples; None where there are none.

        Raises `SpecError` where there are several attacks, `CellError` where it failed.
        """
        return self._attacked.confidence_on_misclassified

    @property
    def examples(self) -> Examples:
        """What became of each example under the one attack at the one epsilon.

        Raises `SpecError` where there are several, `CellError` where it failed.
        """
        row = self._attacked
        (clean,) = (
            each for each in self.evaluations if each.unattacked and each.model == row.model
        )
        self._only([clean], "models")
        before, after = self.outcomes[clean.digest], self.outcomes[row.digest]
        (digest,) = (card.digest for card in self.record.models if card.name == row.model)
        return Examples(
            after.example_id,
            after.label,
            before.scores[digest].predicted,
            after.scores[digest].predicted,
            after.scores[digest].confidence,
            after.distance,
            after.misclassified(digest),
        )

    def select(
        self,
        *,
        model: str | None = None,
        attack: str | None = None,
        epsilon: Budget | None = None,
    ) -> Results:
        """Returns the results of one model, one attack by its label, one epsilon, or of several.

        Raises `UnknownNameError` or `SpecError` where there is nothing of that name or epsilon.
        """
        budget = None if epsilon is None else Epsilon.parse(epsilon, where="epsilon")
        experiments = self.record.suite.experiments
        attacks = [each for experiment in experiments for each in experiment.attacks]
        models = {each.name for experiment in experiments for each in experiment.models}
        if model is not None and model not in models:
            raise UnknownNameError("model", model, known=models)
        if attack is not None and attack not in (labels := {each.label for each in attacks}):
            raise UnknownNameError("attack", attack, known=labels)
        budgets = [
            each for spec in attacks if attack in (None, spec.label) for each in spec.epsilon
        ]
        if budget is not None and budget not in budgets:
            known = ", ".join(map(str, sorted(set(budgets))))
            raise SpecError(f"nothing was measured at epsilon {budget}; there are {known}")
        return Results(_narrowed(self.record, model, attack, budget), self.outcomes)

    def to_frame(self) -> pd.DataFrame:
        """Returns the evaluations as pandas: the columns of ``evaluations.csv``."""
        from benchmark.report.csv_files import frame

        return frame(Evaluation, self.evaluations)

    def transfer_frame(self) -> pd.DataFrame:
        """Returns the transfers as pandas: the columns of ``transfer.csv``."""
        from benchmark.report.csv_files import frame

        return frame(Transfer, self.transfers)

    def __str__(self) -> str:
        written = StringIO()
        print_chapters(short_chapters(self.record), Console(file=written, color_system=None))
        return written.getvalue()

    def __repr__(self) -> str:
        failed = f", {len(self.failures)} failed" if self.failures else ""
        return f"<Results {self.record.suite.name!r}: {len(self.evaluations)} rows{failed}>"

    def _repr_html_(self) -> str:
        return chapters_html(short_chapters(self.record))

    @property
    def _attacked(self) -> Evaluation:
        rows = [row for row in self.evaluations if not row.unattacked]
        return self._only(rows, "models, attacks or epsilons")

    def _only(self, rows: Sequence[Evaluation], kind: str) -> Evaluation:
        if not rows:
            raise SpecError("no attack was asked for: there is nothing but the clean error")
        if len(rows) > 1:
            named = [f"{row.model}, {row.attack} at {row.epsilon}" for row in rows]
            more = [f"and {len(rows) - NAMED} more"] if len(rows) > NAMED else []
            what = "; ".join([*named[:NAMED], *more])
            raise SpecError(f"there are several {kind}; choose one with select(...): {what}")
        (row,) = rows
        if row.status == "failed":
            reason = next(
                failure.error
                for failure in self.failures
                if (failure.model, failure.attack) == (row.model, row.attack)
                and (row.unattacked or failure.epsilon == row.epsilon)
            )
            raise CellError(f"{row.model}, {row.attack} at epsilon {row.epsilon} failed: {reason}")
        return row


def _known(rate: float | None) -> float:
    if rate is None:
        raise CellError("there is no such number: the unattacked examples failed")
    return rate


def _narrowed(
    record: RunRecord, model: str | None, attack: str | None, epsilon: Epsilon | None
) -> RunRecord:
    """Returns a record with what is about one model, attack and epsilon; None stands for any.

    The unattacked rows stay; transfers stay by the model that the examples were made on.
    """

    def kept(name: str, label: str, budget: Epsilon) -> bool:
        return model in (None, name) and attack in (None, label) and epsilon in (None, budget)

    def experiment(whole: Experiment) -> Experiment:
        attacks = tuple(
            spec.model_copy(update={"epsilon": left})
            for spec in whole.attacks
            if attack in (None, spec.label)
            and (left := tuple(each for each in spec.epsilon if epsilon in (None, each)))
        )
        labels = {each.label for each in attacks}
        crossed = (
            [each for each in whole.transfer.attacks if each in labels] if whole.transfer else []
        )
        transfer = TransferSpec(attacks=tuple(crossed)) if crossed and model is None else None
        models = tuple(each for each in whole.models if model in (None, each.name))
        return whole.model_copy(update={"models": models, "attacks": attacks, "transfer": transfer})

    suite = record.suite
    about_attacks = attack is None and epsilon is None
    return record.model_copy(
        update={
            "suite": suite.model_copy(
                update={"experiments": tuple(map(experiment, suite.experiments))}
            ),
            "evaluations": tuple(
                row
                for row in record.evaluations
                if (row.unattacked and model in (None, row.model))
                or kept(row.model, row.attack, row.epsilon)
            ),
            "transfers": tuple(
                row for row in record.transfers if kept(row.source, row.attack, row.epsilon)
            ),
            "agreements": tuple(
                row for row in record.agreements if kept(row.source, row.attack, row.epsilon)
            ),
            "worst_cases": tuple(
                row for row in record.worst_cases if about_attacks and model in (None, row.model)
            ),
            "failures": tuple(
                row
                for row in record.failures
                if (row.attack == UNATTACKED and model in (None, row.model))
                or kept(row.model, row.attack, row.epsilon)
            ),
        }
    )


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


@contextmanager
def _folder(output: Place | None) -> Iterator[Path]:
    if output is not None:
        yield Path(output)
        return
    with TemporaryDirectory(prefix="gibbon-") as folder:
        yield Path(folder)


@contextmanager
def _told(progress: Progress | bool) -> Iterator[Progress]:
    if not isinstance(progress, bool):
        yield progress
    elif progress:
        with RunProgress(Console(stderr=True, emoji=False)) as shown:
            yield shown
    else:
        yield Silent()
