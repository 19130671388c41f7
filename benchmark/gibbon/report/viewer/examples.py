"""The examples of a run, as the viewer filters and shows them: read lazily from the outcomes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from gibbon.core.errors import SpecError
from gibbon.core.threat import Verdict
from gibbon.records.outcomes import OUTCOMES, Outcome, read_outcome
from gibbon.records.run import DatasetCard, Evaluation, RunRecord
from gibbon.specs.base import UNATTACKED
from gibbon.specs.suite import Experiment

Which = Literal["all", "fooled", "misclassified", "withstood", "clean-mistake", "invalid"]
AgreementFilter = Literal["any", "all-right", "some-wrong", "all-wrong", "same-class", "different"]
ExampleOrder = Literal["id", "most-confident", "least-confident", "nearest", "farthest"]

PAGE: Final = 24  # examples of a page
_HELD: Final = 48  # outcomes in memory
UNKNOWN: Final = -1  # class of an answer that was not recorded
T = TypeVar("T")


@dataclass(frozen=True)
class ModelAnswers:
    """A model's answers to the examples of one cell, each of shape (N,), in the dataset's order.

    ``predicted`` is -1 and ``confidence`` NaN if the answer is not recorded, as in runs that
    measure errors only.
    """

    predicted: NDArray[np.int32]
    confidence: NDArray[np.float32]
    wrong: NDArray[np.bool_]


@dataclass(frozen=True)
class ExampleFilters:
    """The filters of the viewer.

    Args:
        dataset, model, attack, epsilon: the cell; the epsilon as it is written in the record.
        label: the true class; None for all.
        given: the class that the model gives to the adversarial example; None for all.
        which: the outcome.
        low, high: the confidence in the answer to the adversarial example, from 0 to 1.
        agreement: how the answers of all models agree.
        order: how the examples are sorted.
    """

    dataset: str
    model: str
    attack: str
    epsilon: str
    label: int | None = None
    given: int | None = None
    which: Which = "all"
    low: float = 0.0
    high: float = 1.0
    agreement: AgreementFilter = "any"
    order: ExampleOrder = "id"


def parse_filters(written: Mapping[str, str], examples: RunExamples) -> ExampleFilters:
    """Returns the filters in the query of an address; missing ones are those of the first cell.

    Raises `SpecError` that names the key, what was expected and what was written.
    """
    first = examples.cells()[0]
    dataset = _one_of(written, "dataset", examples.datasets, first.dataset)
    models = examples.models(dataset)
    model = _one_of(written, "model", models, models[0])
    attacks = examples.attacks(dataset, model)
    attack = _one_of(written, "attack", tuple(attacks), next(iter(attacks)))
    epsilons = attacks[attack]
    return ExampleFilters(
        dataset,
        model,
        attack,
        _one_of(written, "epsilon", epsilons, epsilons[-1]),
        _class(written, "class"),
        _class(written, "given"),
        _literal(written, "outcome", Which, "all"),
        _share(written, "low", 0.0),
        _share(written, "high", 1.0),
        _literal(written, "agreement", AgreementFilter, "any"),
        _literal(written, "order", ExampleOrder, "id"),
    )


@dataclass
class RunExamples:
    """The examples of a run.

    Args:
        record: the run's record.
        folder: its folder, with the outcomes.

    Raises `RecordError` if it has no evaluation of a model.
    """

    record: RunRecord
    folder: Path
    _held: OrderedDict[str, Outcome | None] = field(default_factory=OrderedDict, repr=False)
    _answers: OrderedDict[tuple[str, ...], dict[str, ModelAnswers]] = field(
        default_factory=OrderedDict, repr=False
    )

    def __post_init__(self) -> None:
        self._digests = {card.name: card.digest for card in self.record.models}
        self._rows: dict[tuple[str, str, str, str], Evaluation] = {
            (each.dataset, each.model, each.attack, str(each.epsilon)): each
            for each in self.record.evaluations
            if each.status == "done" and each.digest
        }

    def cells(self) -> tuple[Evaluation, ...]:
        """Returns the cells that are done, in the record's order."""
        return tuple(self._rows.values())

    @property
    def datasets(self) -> tuple[str, ...]:
        """The datasets with a cell that is done."""
        return tuple(dict.fromkeys(each.dataset for each in self.cells()))

    def models(self, dataset: str) -> tuple[str, ...]:
        """Returns the models with a cell on a dataset."""
        return tuple(dict.fromkeys(each.model for each in self.cells() if each.dataset == dataset))

    def attacks(self, dataset: str, model: str) -> dict[str, tuple[str, ...]]:
        """Returns the epsilons of each attack of a model, smallest first; attacked cells first."""
        found: dict[str, list[Evaluation]] = {}
        for each in self.cells():
            if (each.dataset, each.model) == (dataset, model):
                found.setdefault(each.attack, []).append(each)
        names = sorted(found, key=lambda name: name == UNATTACKED)
        return {
            name: tuple(
                str(each.epsilon) for each in sorted(found[name], key=lambda each: each.epsilon)
            )
            for name in names
        }

    def card(self, dataset: str) -> DatasetCard | None:
        """Returns the card of a dataset."""
        return self.record.dataset_cards.get(dataset)

    def experiment(self, dataset: str) -> Experiment:
        """Returns the experiment of a dataset."""
        return next(each for each in self.record.suite.experiments if each.dataset.name == dataset)

    def class_name(self, dataset: str, label: int) -> str:
        """Returns the name of a class, or its number."""
        card = self.card(dataset)
        names = card.classes if card is not None else ()
        if label == UNKNOWN:
            return "not recorded"
        return names[label] if 0 <= label < len(names) else f"class {label}"

    def cell(self, filters: ExampleFilters) -> Evaluation:
        """Returns the row of the cell that filters select."""
        return self._rows[filters.dataset, filters.model, filters.attack, filters.epsilon]

    def outcome(self, row: Evaluation) -> Outcome | None:
        """Returns the outcome of a cell, or None if it is missing or damaged."""
        return _held(
            self._held, row.digest, lambda: read_outcome(self.folder / OUTCOMES, row.digest)
        )

    def unattacked(self, dataset: str, model: str) -> Outcome | None:
        """Returns the outcome of a model on the clean examples, or None if it is missing."""
        for (data, name, attack, _), row in self._rows.items():
            if (data, name, attack) == (dataset, model, UNATTACKED):
                return self.outcome(row)
        return None

    def own_answers(self, filters: ExampleFilters) -> dict[str, ModelAnswers]:
        """Returns the answers of each model to its own adversarial examples of the same cell."""
        key = (filters.dataset, filters.model, filters.attack, filters.epsilon)
        return _held(self._answers, key, lambda: self._own_answers(filters))

    def answers_to(self, filters: ExampleFilters) -> dict[str, ModelAnswers]:
        """Returns the answers of each model that was evaluated on this cell's examples."""
        outcome = self.outcome(self.cell(filters))
        if outcome is None:
            return {}
        names = {digest: name for name, digest in self._digests.items()}
        return {
            names.get(digest, outcome.meta.targets.get(digest, digest)): model_answers(
                outcome, digest
            )
            for digest in outcome.scores
        }

    def compared(self, filters: ExampleFilters) -> dict[str, ModelAnswers]:
        """Returns the answers that agreement is about: of all models to these examples, if known.

        Else they are those of each model to its own adversarial examples.
        """
        found = self.answers_to(filters)
        return found if len(found) > 1 else self.own_answers(filters)

    def digest(self, model: str) -> str:
        """Returns the digest of a model; empty if it has no card."""
        return self._digests.get(model, "")

    def _own_answers(self, filters: ExampleFilters) -> dict[str, ModelAnswers]:
        first = self.outcome(self.cell(filters))
        found = {}
        for model in self.models(filters.dataset):
            row = self._rows.get((filters.dataset, model, filters.attack, filters.epsilon))
            outcome = None if row is None else self.outcome(row)
            if outcome is None or first is None:
                continue
            if np.array_equal(outcome.example_id, first.example_id):
                found[model] = model_answers(outcome, self.digest(model))
        return found


@dataclass(frozen=True)
class SelectedExamples:
    """The examples that filters select: their rows in the cell's outcome, in order."""

    filters: ExampleFilters
    outcome: Outcome
    adversarial: ModelAnswers
    clean: ModelAnswers | None
    rows: NDArray[np.int64]

    def page(self, number: int) -> NDArray[np.int64]:
        """Returns the rows of a page; a page beyond the last is the last one."""
        last = max(0, (len(self.rows) - 1) // PAGE)
        number = min(max(0, number), last)
        return self.rows[number * PAGE : (number + 1) * PAGE]

    def place(self, example: int) -> int | None:
        """Returns the position of an example among those selected; None if it is not."""
        found = np.flatnonzero(self.outcome.example_id[self.rows] == example)
        return int(found[0]) if len(found) else None

    def row(self, example: int) -> int | None:
        """Returns the row of an example, selected or not; None if the cell does not have it."""
        found = np.flatnonzero(self.outcome.example_id == example)
        return int(found[0]) if len(found) else None


def find(examples: RunExamples, filters: ExampleFilters) -> SelectedExamples | None:
    """Returns the examples that filters select, or None if the cell's outcome is missing."""
    outcome = examples.outcome(examples.cell(filters))
    if outcome is None:
        return None
    answers = model_answers(outcome, examples.digest(filters.model))
    clean = None
    before = examples.unattacked(filters.dataset, filters.model)
    if before is not None and np.array_equal(before.example_id, outcome.example_id):
        clean = model_answers(before, examples.digest(filters.model))
    chosen = _outcome_mask(filters.which, outcome, answers, clean)
    if filters.label is not None:
        chosen &= outcome.label == filters.label
    if filters.given is not None:
        chosen &= answers.predicted == filters.given
    if filters.low > 0 or filters.high < 1:
        chosen &= (answers.confidence >= filters.low) & (answers.confidence <= filters.high)
    if filters.agreement != "any":
        chosen &= agreeing(filters.agreement, examples.compared(filters), len(chosen))
    rows = np.flatnonzero(chosen)
    keys: dict[str, NDArray[Any]] = {
        "id": outcome.example_id,
        "most-confident": -answers.confidence,
        "least-confident": answers.confidence,
        "nearest": outcome.distance,
        "farthest": -outcome.distance,
    }
    rows = rows[np.argsort(keys[filters.order][rows], kind="stable")]
    return SelectedExamples(filters, outcome, answers, clean, rows)


def agreeing(
    how: AgreementFilter, compared: Mapping[str, ModelAnswers], count: int
) -> NDArray[np.bool_]:
    """Returns on which examples the answers of models agree in this way, shape (N,).

    ``same-class``: at least two models are wrong, and all that are give one class; ``different``:
    two models give different classes.
    """
    answers = list(compared.values())
    if not answers:
        return np.zeros(count, dtype=np.bool_)
    wrong = np.stack([each.wrong for each in answers])
    predicted = np.stack([each.predicted for each in answers])
    any_wrong: NDArray[np.bool_] = np.any(wrong, axis=0)
    all_wrong: NDArray[np.bool_] = np.all(wrong, axis=0)
    if how == "all-right":
        return ~any_wrong
    if how == "some-wrong":
        return any_wrong & ~all_wrong
    if how == "all-wrong":
        return all_wrong
    if how == "different":
        return np.asarray(predicted.min(axis=0) != predicted.max(axis=0), dtype=np.bool_)
    low = np.where(wrong, predicted, np.iinfo(np.int32).max).min(axis=0)
    high = np.where(wrong, predicted, np.iinfo(np.int32).min).max(axis=0)
    same = (wrong.sum(axis=0) >= 2) & (low == high) & (low != UNKNOWN)
    return np.asarray(same, dtype=np.bool_)


def _outcome_mask(
    which: Which, outcome: Outcome, answers: ModelAnswers, clean: ModelAnswers | None
) -> NDArray[np.bool_]:
    everything = np.ones(len(outcome.example_id), dtype=np.bool_)
    mistakes = ~everything if clean is None else clean.wrong
    masks: dict[Which, NDArray[np.bool_]] = {
        "all": everything,
        "fooled": answers.wrong & ~mistakes,
        "misclassified": answers.wrong,
        "withstood": ~answers.wrong,
        "clean-mistake": mistakes,
        "invalid": outcome.verdict != Verdict.VALID,
    }
    return masks[which].copy()


def model_answers(outcome: Outcome, digest: str) -> ModelAnswers:
    """Returns the answers in an outcome of the model of a digest."""
    scores = outcome.scores.get(digest)
    count = len(outcome.example_id)
    if scores is None:
        return ModelAnswers(
            np.full(count, UNKNOWN, dtype=np.int32),
            np.full(count, np.nan, dtype=np.float32),
            outcome.any_misclassified,
        )
    return ModelAnswers(scores.predicted, scores.confidence, outcome.misclassified(digest))


def _held(store: OrderedDict[Any, T], key: object, make: Callable[[], T]) -> T:
    """Returns what is in memory under a key, made if it is not there; the oldest is dropped."""
    if key in store:
        store.move_to_end(key)
        return store[key]
    store[key] = made = make()
    if len(store) > _HELD:
        store.popitem(last=False)
    return made


def _one_of(written: Mapping[str, str], key: str, known: tuple[str, ...], otherwise: str) -> str:
    value = written.get(key, "") or otherwise
    if value not in known:
        raise SpecError(f"expected one of {', '.join(known)}, got {value!r}", where=key)
    return value


def _literal(written: Mapping[str, str], key: str, kind: Any, otherwise: str) -> Any:
    return _one_of(written, key, get_args(kind), otherwise)


def whole(
    written: Mapping[str, str], key: str, *, expected: str = "a whole number", digits: int = 15
) -> int | None:
    """Returns the whole number in a query parameter, or None without one.  Raises `SpecError`."""
    text = written.get(key, "")
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= digits):
        raise SpecError(f"expected {expected}, got {text!r}", where=key)
    return int(text)


def _class(written: Mapping[str, str], key: str) -> int | None:
    return whole(written, key, expected="the number of a class", digits=9)


def _share(written: Mapping[str, str], key: str, otherwise: float) -> float:
    text = written.get(key, "")
    try:
        share = float(text) if text else otherwise
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise SpecError(f"expected a confidence from 0 to 1, got {text!r}", where=key)
    return share
