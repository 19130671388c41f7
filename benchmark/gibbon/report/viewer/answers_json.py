"""Values for JSON that the viewer's page requests: the run, a page of examples, one example."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from gibbon.core.errors import SpecError
from gibbon.core.plain_text import printable
from gibbon.core.threat import Verdict
from gibbon.records.outcomes import Outcome
from gibbon.report.content.parts.lookup import RunLookup
from gibbon.report.content.summary.verdict_cards import title_sentence, verdict_cards
from gibbon.report.viewer.examples import (
    PAGE,
    UNKNOWN,
    ExampleFilters,
    ModelAnswers,
    RunExamples,
    SelectedExamples,
    find,
    model_answers,
    parse_filters,
    whole,
)
from gibbon.report.viewer.inputs import InputStore, ShownInput, display_of, numbers
from gibbon.specs.base import UNATTACKED

HOW_TO_KEEP: Final = (
    "No adversarial example of this cell is kept. Run the suite again with --keep-examples all, "
    "misclassified or a number: nothing is computed again but the examples that are missing."
)


def run_values(examples: RunExamples) -> dict[str, Any]:
    """Returns what the page needs to know of the run once."""
    record = examples.record
    return {
        "title": printable(record.suite.title or record.suite.name),
        "sentence": printable(title_sentence(verdict_cards(RunLookup(record)))),
        "unattacked": UNATTACKED,
        "datasets": [_dataset_values(examples, name) for name in examples.datasets],
    }


def _dataset_values(examples: RunExamples, name: str) -> dict[str, Any]:
    card = examples.card(name)
    return {
        "name": name,
        "classes": [] if card is None else list(map(printable, card.classes)),
        "display": "values" if card is None else display_of(card.input_shape),
        "shape": [] if card is None else list(card.input_shape),
        "models": [
            {
                "name": model,
                "attacks": [
                    {"name": attack, "epsilons": list(epsilons)}
                    for attack, epsilons in examples.attacks(name, model).items()
                ],
            }
            for model in examples.models(name)
        ],
    }


def page_values(
    examples: RunExamples, inputs: InputStore, written: Mapping[str, str]
) -> dict[str, Any]:
    """Returns a page of the examples that an address selects.  Raises `SpecError`."""
    filters = parse_filters(written, examples)
    found = find(examples, filters)
    row = examples.cell(filters)
    values = {"question": _filter_values(filters), "kept": inputs.kept(row)}
    if found is None:
        lost = "The outcomes of this cell are missing or damaged; gibbon run computes them again."
        return {**values, "total": 0, "of": 0, "page": 0, "pages": 0, "rows": [], "missing": lost}
    page = whole(written, "page") or 0
    example = whole(written, "example")
    place = None if example is None else found.place(example)
    if "page" not in written and place is not None:
        page = place // PAGE
    pages = -(-len(found.rows) // PAGE)
    page = max(0, min(page, pages - 1))
    rows = found.page(page)
    compared = examples.compared(filters)
    stored = inputs.stored(row, examples.card(filters.dataset), found.outcome.example_id[rows])
    return {
        **values,
        "total": len(found.rows),
        "of": len(found.outcome.example_id),
        "page": page,
        "pages": pages,
        "rows": [
            {
                **_example_values(examples, found, int(at)),
                "stored": bool(has),
                "wrong": sum(bool(each.wrong[at]) for each in compared.values()),
                "models": len(compared),
            }
            for at, has in zip(rows.tolist(), stored.tolist(), strict=True)
        ],
        "missing": "" if values["kept"] or filters.attack == UNATTACKED else HOW_TO_KEEP,
    }


def example_values(
    examples: RunExamples, inputs: InputStore, written: Mapping[str, str]
) -> dict[str, Any]:
    """Returns everything that is known of one example.  Raises `SpecError`."""
    filters = parse_filters(written, examples)
    example, found = whole(written, "example"), find(examples, filters)
    at = None if found is None or example is None else found.row(example)
    if found is None or at is None or example is None:
        raise SpecError(f"this cell has no example {written.get('example', '')!r}", where="example")
    place = found.place(example)
    ids = found.outcome.example_id
    beside = {
        name: int(ids[found.rows[other]])
        for name, other in (("previous", (place or 0) - 1), ("next", (place or 0) + 1))
        if place is not None and 0 <= other < len(found.rows)
    }
    shown = shown_input(examples, inputs, filters, example)
    return {
        "question": _filter_values(filters),
        **_example_values(examples, found, at),
        "place": None if place is None else place + 1,
        "total": len(found.rows),
        **beside,
        "norm": _norm(examples, filters),
        "answers": _answers_values(examples, filters, at),
        "stored": shown is not None,
        "picture": shown is not None and shown.pictures is not None,
        "scale": None if shown is None else f"{shown.scale:.3g}",
        "note": "" if shown is None else shown.note,
        "numbers": None if shown is None else numbers(shown),
        "missing": "" if shown is not None else HOW_TO_KEEP,
    }


def shown_input(
    examples: RunExamples, inputs: InputStore, filters: ExampleFilters, example: int
) -> ShownInput | None:
    """Returns the inputs of an example, or None if none are stored."""
    return inputs.find(examples.cell(filters), examples.card(filters.dataset), example)


def _norm(examples: RunExamples, filters: ExampleFilters) -> str:
    norm = examples.cell(filters).norm
    return "" if norm is None else norm.symbol


def _filter_values(filters: ExampleFilters) -> dict[str, str]:
    written = {
        "dataset": filters.dataset,
        "model": filters.model,
        "attack": filters.attack,
        "epsilon": filters.epsilon,
    }
    others = {
        "class": "" if filters.label is None else str(filters.label),
        "given": "" if filters.given is None else str(filters.given),
        "outcome": "" if filters.which == "all" else filters.which,
        "low": "" if filters.low == 0 else f"{filters.low:g}",
        "high": "" if filters.high == 1 else f"{filters.high:g}",
        "agreement": "" if filters.agreement == "any" else filters.agreement,
        "order": "" if filters.order == "id" else filters.order,
    }
    return {**written, **{key: value for key, value in others.items() if value}}


def _example_values(examples: RunExamples, found: SelectedExamples, at: int) -> dict[str, Any]:
    outcome, dataset, clean = found.outcome, found.filters.dataset, found.clean
    distance = float(outcome.distance[at])
    target = None if outcome.target_class is None else int(outcome.target_class[at])
    return {
        "id": int(outcome.example_id[at]),
        "label": printable(examples.class_name(dataset, int(outcome.label[at]))),
        "clean": None if clean is None else _answer(examples, dataset, clean, outcome, at),
        "adversarial": _answer(examples, dataset, found.adversarial, outcome, at),
        "distance": f"{distance:.4g}" if math.isfinite(distance) else "",
        "valid": bool(outcome.verdict[at] == Verdict.VALID),
        "target": "" if target is None or target < 0 else examples.class_name(dataset, target),
    }


def _answers_values(
    examples: RunExamples, filters: ExampleFilters, at: int
) -> list[dict[str, Any]]:
    """Returns the answers of all models: to the clean example, to this one, and to their own."""
    dataset = filters.dataset
    to_this, own = examples.answers_to(filters), examples.own_answers(filters)
    outcome = examples.outcome(examples.cell(filters))
    if outcome is None:
        return []

    def given(answers: ModelAnswers | None) -> dict[str, Any] | None:
        return None if answers is None else _answer(examples, dataset, answers, outcome, at)

    return [
        {
            "model": model,
            "source": model == filters.model,
            "clean": given(_clean(examples, dataset, model, outcome)),
            "this": given(to_this.get(model)),
            "own": given(own.get(model)),
        }
        for model in dict.fromkeys((*examples.models(dataset), *to_this))
    ]


def _clean(examples: RunExamples, dataset: str, model: str, of: Outcome) -> ModelAnswers | None:
    """Returns a model's answers to the clean inputs of the examples of an outcome, if known."""
    outcome = examples.unattacked(dataset, model)
    if outcome is None or not np.array_equal(outcome.example_id, of.example_id):
        return None
    return model_answers(outcome, examples.digest(model))


def _answer(
    examples: RunExamples, dataset: str, answers: ModelAnswers, outcome: Outcome, at: int
) -> dict[str, Any]:
    """Returns an answer; ``wrong`` says whether it is, even if the candidate does not count."""
    given, confidence = int(answers.predicted[at]), float(answers.confidence[at])
    return {
        "label": printable(examples.class_name(dataset, given)),
        "confidence": f"{100 * confidence:.1f} %" if math.isfinite(confidence) else "",
        "wrong": bool(answers.wrong[at] if given == UNKNOWN else given != outcome.label[at]),
    }
