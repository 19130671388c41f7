"""The conclusion of a run in one sentence a model, and the assumptions that it was made under.

A conclusion names the robust accuracy with its interval and its examples, the threat model, the
attacks, the flags, and what would make the figure stronger evidence.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from gibbon.records.run import DatasetCard, RunRecord, WorstCase
from gibbon.report.content.parts.flag_groups import flag_groups
from gibbon.report.content.parts.lookup import Condition, RunLookup, robust_accuracy
from gibbon.report.content.parts.number_format import interval, percent
from gibbon.report.content.published_numbers.verdicts import FEWEST
from gibbon.specs.suite import Experiment, ModelSpec

MOST: Final = 4  # models that are concluded upon; more are a table
_GRADIENT_FREE: Final = ("square",)
_WHOLE: Final = ("autoattack", "autoattack-l1", "autoattack:standard")
_SHOWN_CLASSES: Final = 3
_NAMED: Final = 5  # attacks; more are counted
PIXELS: Final = (0.0, 1.0)


def conclusions(record: RunRecord) -> tuple[str, ...]:
    """Returns a sentence about each model at the headline's threat model.

    Empty for more than a few models, and for runs without attacks.
    """
    results = RunLookup(record)
    found = [
        _conclusion(results, experiment, model, worst)
        for experiment in results.experiments
        for model in experiment.models
        if (worst := _headline(record, experiment, model)) is not None
    ]
    return tuple(found) if len(found) <= MOST else ()


def _headline(record: RunRecord, experiment: Experiment, model: ModelSpec) -> WorstCase | None:
    """Returns the worst case at the largest epsilon, of attacks inside of the bounds if any are."""
    of_model = (
        each
        for each in record.worst_cases
        if (each.dataset, each.model) == (experiment.dataset.name, model.name)
    )
    return max(
        of_model, key=lambda each: (each.clip, len(each.attacks), each.epsilon), default=None
    )


def _conclusion(
    results: RunLookup, experiment: Experiment, model: ModelSpec, worst: WorstCase
) -> str:
    groups = [each for each in flag_groups(results.flags(worst)) if not each.accepted]
    serious = [each.kind for each in groups if each.severity == "serious"]
    others = [each.kind for each in groups if each.severity == "warning"]
    accuracy = robust_accuracy(worst)
    figure = f"at most {percent(accuracy.rate)} {interval(accuracy)} of {worst.examples:,} examples"
    clean = results.error(Condition.unattacked(worst.dataset), model.name)
    before = "" if clean.rate is None else f" ({percent(1 - clean.rate)} unattacked)"
    if worst.certified_error is not None and worst.certified_error < 1:
        before += f", of which {percent(1 - worst.certified_error)} proved"
    where = "inside the bounds" if worst.clip else "not clipped to the bounds"
    flagged = "; ".join(
        part
        for part in (
            f"serious flags: {', '.join(serious)}, so don't use it yet" if serious else "",
            f"flagged: {', '.join(others)}" if others else "",
        )
        if part
    ) or ("not flagged" if results.record.checks else "no checks were made")
    parts = [
        f"Robust accuracy of {model.name} on {worst.dataset}: {figure}{before}",
        f"under {worst.norm.symbol} changes of up to {worst.epsilon}, {where}, by "
        f"{_attacks_text(results, worst)}",
    ]
    sentence = f"{', '.join(parts)}; {flagged}"
    if accuracy.rate == 0:  # no attack could find more
        return f"{sentence}."
    stronger = ", ".join(_stronger(results, experiment, worst, settle=bool(serious)))
    return f"{sentence}; stronger with: {stronger}." if stronger else f"{sentence}."


def _attacks_text(results: RunLookup, worst: WorstCase) -> str:
    if len(worst.attacks) > _NAMED:
        return f"{len(worst.attacks)} attacks"
    return ", ".join(_attack_text(results, worst, attack) for attack in worst.attacks)


def _attack_text(results: RunLookup, worst: WorstCase, attack: str) -> str:
    found = results.evaluation(Condition(worst.dataset, attack, worst.epsilon), worst.model)
    values = found.parameter_values if found is not None else {}
    words = [
        f"{values[key]} {key}" for key in ("steps", "queries") if isinstance(values.get(key), int)
    ]
    if found is not None and (listed := results.listed_attacks(found)):
        words = [" + ".join(listed)]
    return f"{attack} ({', '.join(words)})" if words else attack


def _algorithms(results: RunLookup, worst: WorstCase) -> set[str]:
    """Returns the names of the attacks of a worst case, and of the members of lists."""
    names: set[str] = set()
    for attack in worst.attacks:
        found = results.evaluation(Condition(worst.dataset, attack, worst.epsilon), worst.model)
        if found is not None:
            names |= {found.algorithm, *results.listed_attacks(found)}
    return names


def _stronger(
    results: RunLookup, experiment: Experiment, worst: WorstCase, *, settle: bool
) -> Iterator[str]:
    """Yields what would make the figure stronger evidence, the most urgent first."""
    if settle:
        yield "the serious flags settled (see below)"
    if any(each.model == worst.model for each in results.record.failures):
        yield "the failed attacks repeated"
    names = _algorithms(results, worst)
    proved = worst.certified_error == worst.worst_case_error  # no attack finds more
    if not proved and not names.intersection(_WHOLE):
        if not names.intersection(_GRADIENT_FREE):
            yield "an attack without gradients (square)"
        yield "--attack autoattack"
    card = results.record.dataset_cards.get(experiment.dataset.name)
    if card is not None and card.examples < card.of:
        yield f"more of the {card.of:,} examples (--limit)"
    elif worst.examples < FEWEST:
        yield f"{FEWEST:,} examples or more"
    if not proved:
        yield "an attack made for this model (docs/adaptive-attacks.md)"


def assumptions(record: RunRecord) -> tuple[str, ...]:
    """Returns what a run took for granted, in three lines: inputs, normalisation, classes.

    Empty unless all models are evaluated on one dataset with classes.
    """
    experiments = RunLookup(record).experiments
    if len(experiments) != 1:
        return ()
    (experiment,) = experiments
    card = record.dataset_cards.get(experiment.dataset.name)
    if card is None:
        return ()
    return (
        f"Inputs: {_inputs(card)}.",
        f"Normalisation: {'; '.join(_normalisations(record, experiment))}.",
        f"Classes: {_classes(card)}.",
    )


def _inputs(card: DatasetCard) -> str:
    low, high = card.bounds or PIXELS
    count = f"all {card.of:,} examples"
    if card.examples < card.of:
        count = f"{card.examples:,} of {card.of:,} examples (a fixed sample)"
    return f"in [{low:g}, {high:g}], ε in these units; {count}"


def _normalisations(record: RunRecord, experiment: Experiment) -> Iterator[str]:
    cards = {each.name: each for each in record.models}
    found: dict[str, list[str]] = {}
    for model in experiment.models:
        card = cards.get(model.name)
        stated = [each for each in (card.notes if card else ()) if "normalis" in each]
        if model.mean is not None and model.std is not None:
            text = f"(x − mean) / std with mean {_row(model.mean)}, std {_row(model.std)}, as given"
        elif stated:
            text = "; ".join(each.rstrip(".") for each in stated)
        else:
            text = "none given, so that the model must contain its own"
        found.setdefault(text, []).append(model.name)
    for text, names in found.items():
        yield text if len(found) == 1 else f"{', '.join(names)}: {text}"


def _row(numbers: tuple[float, ...]) -> str:
    return ", ".join(f"{each:g}" for each in numbers)


def _classes(card: DatasetCard) -> str:
    order = card.class_order or "the dataset's own order"
    names = [f"{at} is {name}" for at, name in enumerate(card.classes[:_SHOWN_CLASSES])]
    more = ", …" if len(card.classes) > _SHOWN_CLASSES else ""
    if " is " in order:  # it has an example already
        return f"{len(card.classes)}, {order}"
    return f"{len(card.classes)}, in {order}: {', '.join(names)}{more}"
