"""Tables of the worst case over several attacks, and of the members of a list of attacks."""

from __future__ import annotations

from collections.abc import Iterator

from gibbon.records.run import MemberEvaluation, WorstCase
from gibbon.report.content.parts.layout import (
    FAILED,
    ChapterKind,
    Column,
    Row,
    Table,
    cells,
    columns,
)
from gibbon.report.content.parts.lookup import (
    Condition,
    RunLookup,
    error_after,
    robust_accuracy,
    worst_case_error,
)
from gibbon.report.content.parts.number_format import (
    count,
    count_of,
    interval,
    percent,
    rate_alone,
    rate_cell,
    yes_no,
)
from gibbon.report.content.tables.certified import (
    certified_cells,
    certified_columns,
    certified_notes,
)
from gibbon.report.content.tables.model_comparison import comparison_notes
from gibbon.specs.suite import Experiment

_WORST_CASE_NOTES = (
    "Robust accuracy: of all n examples, those classified correctly clean and at every candidate "
    "of the attacks named, with its Wilson 95 % interval. Worst-case error: the others, which is a "
    "lower bound on what an adversary can reach. An attack that failed is marked so and not "
    "counted.",
)
_MEMBER_NOTES = (
    "The attacks of a list in their order, each run on the examples that survive the earlier ones "
    "(given); examples that are misclassified clean are not attacked. Error after it: of all "
    "examples, those misclassified clean, or under this attack or an earlier one.",
)


def worst_case_tables(results: RunLookup) -> Iterator[Table]:
    """Yields the worst case over all attacks of one threat model: one table a dataset."""
    for experiment in results.experiments:
        found = [
            each for each in results.record.worst_cases if each.dataset == experiment.dataset.name
        ]
        if found:
            yield Table.on(
                experiment.dataset.name,
                (
                    *columns("Model", "Norm", align="left"),
                    *columns("ε", "Clipped"),
                    Column("Robust accuracy", detailed=True),
                    Column("n"),
                    *certified_columns(results, experiment),
                    *columns("Worst-case error", "95 % interval", "Misclassified"),
                    Column("Attacks", "left"),
                ),
                (_worst_case_row(results, experiment, each) for each in found),
                notes=(
                    *comparison_notes(results, experiment),
                    *certified_notes(results, experiment),
                ),
            )


WORST_CASE = ChapterKind("Worst case over attacks", worst_case_tables, _WORST_CASE_NOTES)


def _worst_case_row(results: RunLookup, experiment: Experiment, found: WorstCase) -> Row:
    failed = [
        f"{attack.label} {FAILED}"
        for attack in experiment.attacks
        if attack.label not in found.attacks
        and attack.clip == found.clip
        and found.epsilon in attack.epsilon
        and results.state(Condition(found.dataset, attack.label, found.epsilon), found.model)
        == "failed"
    ]
    return cells(
        found.model,
        found.norm.symbol,
        found.epsilon,
        yes_no(found.clip),
        rate_cell(robust_accuracy(found)).flagged(results.flags(found)),
        count(found.examples),
        *certified_cells(found, results, experiment),
        percent(found.worst_case_error).flagged(results.flags(found)),
        interval(worst_case_error(found)),
        count_of(found.misclassified, found.examples),
        ", ".join([*found.attacks, *failed]),
    )


def member_tables(results: RunLookup) -> Iterator[Table]:
    """Yields one table a dataset: a row for each attack of a list, by model and epsilon."""
    for experiment in results.experiments:
        labels = {attack.label for attack in experiment.attacks}
        rows = tuple(
            _member_row(results, each)
            for each in results.record.members
            if each.dataset == experiment.dataset.name and each.attack in labels
        )
        if rows:
            yield Table.on(
                experiment.dataset.name,
                (
                    *columns("Model", "Attack", align="left"),
                    Column("ε"),
                    Column("Member", "left"),
                    Column("Given", level=1),
                    *columns("Misclassified", "Error after it"),
                    Column("95 % interval", level=1),
                ),
                rows,
            )


MEMBERS = ChapterKind("Worst of several attacks", member_tables, _MEMBER_NOTES)


def _member_row(results: RunLookup, found: MemberEvaluation) -> Row:
    after = error_after(found)
    done = after.state == "done"
    return cells(
        found.model,
        found.attack,
        found.epsilon,
        found.member,
        count(found.given if done else None),
        count(found.misled if done else None),
        rate_alone(after).flagged(results.flags(found)),
        interval(after),
    )
