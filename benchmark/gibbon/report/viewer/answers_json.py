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
from gibbon.report.content.lookup import RunLookup
from gibbon.report.content.verdict_cards import title_sentence, verdict_cards
from gibbon.report.viewer.examples import (
    PAGE,
    UNKNOWN,
    Found,
    ModelAnswers,
    Question,
    RunExamples,
    find,
    model_answers,
    question_of,
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
    question = question_of(written, examples)
    found = find(examples, question)
    row = examples.cell(question)
    values = {"question": _question_values(question), "kept": inputs.kept(row)}
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
    compared = examples.compared(question)
    stored = inputs.stored(row, examples.card(question.dataset), found.outcome.example_id[rows])
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
        "missing": "" if values["kept"] or question.attack == UNATTACKED else HOW_TO_KEEP,
    }


def example_values(
    examples: RunExamples, inputs: InputStore, written: Mapping[str, str]
) -> dict[str, Any]:
    """Returns everything that is known of one example.  Raises `SpecError`."""
    question = question_of(written, examples)
    example, found = whole(written, "example"), find(examples, question)
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
    shown = shown_input(examples, inputs, question, example)
    return {
        "question": _question_values(question),
        **_example_values(examples, found, at),
        "place": None if place is None else place + 1,
        "total": len(found.rows),
        **beside,
        "norm": _norm(examples, question),
        "answers": _answers_values(examples, question, at),
        "stored": shown is not None,
        "picture": shown is not None and shown.pictures is not None,
        "scale": None if shown is None else f"{shown.scale:.3g}",
        "note": "" if shown is None else shown.note,
        "numbers": None if shown is None else numbers(shown),
        "missing": "" if shown is not None else HOW_TO_KEEP,
    }


def shown_input(
    examples: RunExamples, inputs: InputStore, question: Question, example: int
) -> ShownInput | None:
    """Returns the inputs of an example, or None if none are stored."""
    return inputs.find(examples.cell(question), examples.card(question.dataset), example)


def _norm(examples: RunExamples, question: Question) -> str:
    norm = examples.cell(question).norm
    return "" if norm is None else norm.symbol


def _question_values(question: Question) -> dict[str, str]:
    written = {
        "dataset": question.dataset,
        "model": question.model,
        "attack": question.attack,
        "epsilon": question.epsilon,
    }
    others = {
        "class": "" if question.label is None else str(question.label),
        "given": "" if question.given is None else str(question.given),
        "outcome": "" if question.which == "all" else question.which,
        "low": "" if question.low == 0 else f"{question.low:g}",
        "high": "" if question.high == 1 else f"{question.high:g}",
        "agreement": "" if question.agreement == "any" else question.agreement,
        "order": "" if question.order == "id" else question.order,
    }
    return {**written, **{key: value for key, value in others.items() if value}}


def _example_values(examples: RunExamples, found: Found, at: int) -> dict[str, Any]:
    outcome, dataset, clean = found.outcome, found.question.dataset, found.clean
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


def _answers_values(examples: RunExamples, question: Question, at: int) -> list[dict[str, Any]]:
    """Returns the answers of all models: to the clean example, to this one, and to their own."""
    dataset = question.dataset
    to_this, own = examples.answers_to(question), examples.own_answers(question)
    outcome = examples.outcome(examples.cell(question))
    if outcome is None:
        return []

    def given(answers: ModelAnswers | None) -> dict[str, Any] | None:
        return None if answers is None else _answer(examples, dataset, answers, outcome, at)

    return [
        {
            "model": model,
            "source": model == question.model,
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
