"""The table of evaluations: clean and adversarial error of each model under each attack."""

from __future__ import annotations

from collections.abc import Iterator

from gibbon.records.run import Evaluation
from gibbon.report.content.layout import NOTHING, Cell, Column, Table, cells
from gibbon.report.content.lookup import (
    Cut,
    Measured,
    Results,
    adversarial_error,
    clean_error,
    success_rate,
    worst_case_error,
)
from gibbon.report.content.number_format import interval, percent, share, yes_no
from gibbon.report.content.table_parts import _ZERO, _attack_notes, _on, _word
from gibbon.specs.base import UNATTACKED
from gibbon.specs.suite import Experiment

EVALUATIONS = "Evaluations"

EVALUATION_NOTES = (
    "Clean error: misclassified unattacked. Adversarial error: of all examples, those whose "
    "adversarial example is misclassified; clean mistakes are attacked and counted too. The "
    "interval (Wilson, 95 %) and the count are of the adversarial error, in the unattacked "
    f"line (`{UNATTACKED}`) of the clean error.",
    "Worst-case error: misclassified clean or by any candidate tried. Success rate: of the "
    "examples that are classified correctly when clean, those misclassified under attack.",
    "Confidence: the model's probability for the class it predicts; the softmax maximum unless the "
    "model declares otherwise (an RBF unit's own output, unnormalised). On misclassified: mean "
    f"over the misclassified examples, {NOTHING} where there are none. Mean: over all examples.",
    "Saturated: share of examples whose softmax is 1 for the true class in float32. Zero "
    "gradient: share whose input gradient is zero throughout.",
)
_ERROR_ONLY_NOTE = (
    "Asked for errors alone: attacks that can stop at an example's first success did, and what is "
    "left of confidence under attack is not shown."
)


def evaluation_tables(results: Results) -> Iterator[Table]:
    """Yields a table a dataset: a line per model, attack and epsilon."""
    for experiment in results.experiments:
        yield Table(
            title=_on(experiment.dataset.name),
            columns=(
                Column("Model", "left"),
                Column("Attack", "left"),
                Column("ε"),
                Column("Clean error"),
                Column("Adversarial error"),
                Column("95 % interval", level=1),
                Column("Misclassified", level=2),
                Column("Worst-case error", level=2),
                Column("Success rate", level=1),
                Column("of correct when clean", level=2),
                Column("Confidence on misclassified"),
                Column("Mean confidence", level=2),
                Column("Saturated", level=2),
                Column("Zero gradient", level=2),
                Column("Clipped", level=1),
                Column("Iterate kept", "left", level=2),
                Column("Flags", "left", level=2),
            ),
            rows=tuple(_evaluation_rows(results, experiment)),
            notes=(
                *([_ERROR_ONLY_NOTE] if experiment.error_only else []),
                *_attack_notes(results, experiment, experiment.attacks),
            ),
        )


def _evaluation_rows(results: Results, experiment: Experiment) -> Iterator[tuple[Cell, ...]]:
    for model in experiment.models:
        for cut in (Cut(experiment.dataset.name, UNATTACKED, _ZERO), *results.cuts(experiment)):
            found = results.evaluation(cut, model.name)
            epsilon = NOTHING if cut.attack == UNATTACKED else str(cut.epsilon)
            head = cells(model.name, cut.attack, epsilon)
            if found is None or found.status == "failed":
                word = _word(results.state(cut, model.name))
                flags = found.flags if found else ""
                yield (*head, Cell(word), Cell(word), *cells(*[NOTHING] * 11), Cell(flags))
            else:
                yield (*head, *_evaluation_cells(found))


def _evaluation_cells(found: Evaluation) -> tuple[Cell, ...]:
    clean, worst, success = clean_error(found), worst_case_error(found), success_rate(found)
    unattacked = found.unattacked
    shown = clean if unattacked else adversarial_error(found)
    rate = Measured("done") if unattacked else shown
    wrong = found.misclassified if found.misclassified is not None else clean.part
    return cells(
        percent(clean.rate, clean=True),
        percent(rate.rate),
        interval(shown.low, shown.high, rate=shown.rate, clean=unattacked),
        share(wrong, found.examples),
        percent(None if unattacked else worst.rate),
        percent(None if unattacked else success.rate),
        NOTHING if unattacked else share(success.part, success.whole),
        percent(found.confidence_on_misclassified),
        percent(found.mean_confidence),
        percent(found.saturated_share),
        percent(found.zero_gradient_share),
        NOTHING if unattacked else yes_no(found.clip),
        (not unattacked and found.iterate) or NOTHING,
        found.flags,
    )
