"""The table of evaluations: clean and adversarial error of each model under each attack."""

from __future__ import annotations

from collections.abc import Iterator

from gibbon.records.flags import kinds_in
from gibbon.records.run import Evaluation
from gibbon.report.content.parts.layout import (
    NOTHING,
    ChapterKind,
    Column,
    Row,
    Table,
    TableCell,
    cells,
    columns,
)
from gibbon.report.content.parts.lookup import (
    Condition,
    RunLookup,
    adversarial_error,
    clean_error,
    robust_accuracy,
    success_rate,
)
from gibbon.report.content.parts.number_format import (
    count,
    count_of,
    interval,
    mean_cell,
    percent,
    rate_cell,
    state_cell,
    yes_no,
)
from gibbon.report.content.parts.table_parts import attack_notes, class_notes
from gibbon.report.content.tables.certified import (
    certified_cells,
    certified_columns,
    certified_notes,
)
from gibbon.report.content.tables.targeted import target_cells, target_columns, target_notes
from gibbon.specs.base import UNATTACKED
from gibbon.specs.suite import Experiment

_EVALUATION_NOTES = (
    "Robust accuracy: of all n examples, those classified correctly both clean and at every "
    "candidate that the attack returned, which is 1 − worst-case error; in brackets its Wilson "
    "95 % interval. It is an upper bound of what another attack would leave.",
    "Clean error: misclassified unattacked. Adversarial error: of all examples, those whose "
    "adversarial example is misclassified; clean mistakes are attacked and counted too. The "
    "interval (Wilson, 95 %) and the count are of the adversarial error, in the unattacked "
    f"row (`{UNATTACKED}`) of the clean error.",
    "Worst-case error: misclassified clean or by any candidate tried. Success rate: of the "
    "examples that are classified correctly when clean, those misclassified under attack.",
    "Confidence: the model's probability for the class it predicts; the softmax maximum unless the "
    "model declares otherwise (an RBF unit's own output, unnormalised). On misclassified: mean "
    f"over the misclassified examples, {NOTHING} if there are none. Mean: over all examples. In "
    "brackets: bootstrap intervals (BCa, 95 %).",
    "Saturated: share of examples whose softmax is 1 for the true class in float32. Zero "
    "gradient: share whose input gradient is zero throughout.",
)
_ERROR_ONLY_NOTE = (
    "Errors only: attacks that can stop at an example's first success did, so that confidence "
    "under attack is not shown."
)


def evaluation_tables(results: RunLookup) -> Iterator[Table]:
    """Yields one table a dataset: a row for each model, attack and epsilon."""
    for experiment in results.experiments:
        yield Table.on(
            experiment.dataset.name,
            (
                *columns("Model", "Attack", align="left"),
                Column("ε"),
                Column("Robust accuracy", detailed=True),
                Column("n"),
                *columns("Clean error", "Adversarial error", "95 % interval", level=1),
                *certified_columns(results, experiment),
                *columns("Misclassified", "Worst-case error", level=2),
                Column("Success rate", level=1),
                Column("of correct when clean", level=2),
                *target_columns(results, experiment),
                Column("Confidence on misclassified", level=1),
                *columns("Mean confidence", "Saturated", "Zero gradient", level=2),
                Column("Clipped", level=1),
                *columns("Iterate kept", "Flags", align="left", level=2),
            ),
            _evaluation_rows(results, experiment),
            notes=(
                *([_ERROR_ONLY_NOTE] if experiment.error_only else []),
                *class_notes(results, experiment),
                *target_notes(results, experiment),
                *certified_notes(results, experiment),
                *attack_notes(results, experiment, experiment.attacks),
            ),
        )


EVALUATIONS = ChapterKind("Evaluations", evaluation_tables, _EVALUATION_NOTES)


def _kinds_cell(flags: str) -> TableCell:
    return TableCell(flags, kind="flags", kinds=kinds_in(flags))


def _evaluation_rows(results: RunLookup, experiment: Experiment) -> Iterator[Row]:
    for model in experiment.models:
        for condition in (
            Condition.unattacked(experiment.dataset.name),
            *results.conditions(experiment),
        ):
            found = results.evaluation(condition, model.name)
            epsilon = NOTHING if condition.attack == UNATTACKED else condition.epsilon
            head = cells(model.name, condition.attack, epsilon)
            if found is None or found.status == "failed":
                word = state_cell(results.state(condition, model.name))
                flags = found.flags if found else ""
                gaps = *certified_cells(None, results, experiment), *[NOTHING] * 4
                count_cell = count(found.examples if found else None)
                rest = *gaps, *target_cells(None, results, experiment), *[NOTHING] * 6
                words = word, count_cell, word, word, NOTHING
                yield (*head, *words, *rest, _kinds_cell(flags))
            else:
                certified = certified_cells(found, results, experiment)
                targets = target_cells(found, results, experiment)
                yield (*head, *_evaluation_cells(results, found, certified, targets))


def _evaluation_cells(results: RunLookup, found: Evaluation, certified: Row, targets: Row) -> Row:
    flags = results.flags(found)
    clean, success = clean_error(found), success_rate(found)
    unattacked = found.unattacked
    shown = clean if unattacked else adversarial_error(found)
    wrong = found.misclassified if found.misclassified is not None else clean.part
    return cells(
        NOTHING if unattacked else rate_cell(robust_accuracy(found)).flagged(flags),
        count(found.examples),
        percent(clean.rate, clean=True).flagged(results.flags(found, clean=True)),
        percent(None if unattacked else shown.rate).flagged(flags),
        interval(shown, clean=unattacked),
        *certified,
        count_of(wrong, found.examples),
        percent(None if unattacked else found.worst_case_error).flagged(flags),
        percent(None if unattacked else success.rate).flagged(flags),
        NOTHING if unattacked else count_of(success.part, success.whole),
        *targets,
        mean_cell(
            found.confidence_on_misclassified,
            found.confidence_on_misclassified_low,
            found.confidence_on_misclassified_high,
        ).flagged(flags),
        mean_cell(
            found.mean_confidence, found.mean_confidence_low, found.mean_confidence_high
        ).flagged(flags),
        percent(found.saturated_share),
        percent(found.zero_gradient_share),
        NOTHING if unattacked else yes_no(found.clip),
        (not unattacked and found.iterate) or NOTHING,
        _kinds_cell(found.flags),
    )
