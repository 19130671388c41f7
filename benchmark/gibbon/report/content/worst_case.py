"""Tables of the worst case over several attacks, and of the members of a list of attacks."""

from __future__ import annotations

from collections.abc import Iterator

from gibbon.records.run import Member, WorstCase
from gibbon.report.content.layout import FAILED, NOTHING, Cell, Column, Table, cells
from gibbon.report.content.lookup import Results, error_after
from gibbon.report.content.number_format import count, interval, percent, share, yes_no
from gibbon.report.content.table_parts import _cut, _on, _word
from gibbon.specs.suite import Experiment

WORST_CASE = "Worst case over attacks"
MEMBERS = "Worst of several attacks"

_WORST_CASE_NOTES = (
    "Of all examples, those misclassified clean or by any candidate of any of the attacks named; "
    "1 − worst-case error is the robust accuracy. It is a lower bound on what an adversary can "
    "reach. An attack that failed is named so and counts for nothing.",
)
_MEMBER_NOTES = (
    "The attacks of a list in their order, each on what no earlier one misled; examples that are "
    "misclassified clean are given to none. Error after it: of all examples, those misclassified "
    "clean or misled by this attack or one before it.",
)


def worst_case_tables(results: Results) -> Iterator[Table]:
    """Yields the worst case over all attacks of one threat model: a table a dataset."""
    for experiment in results.experiments:
        found = [
            each for each in results.record.worst_cases if each.dataset == experiment.dataset.name
        ]
        if found:
            yield Table(
                title=_on(experiment.dataset.name),
                columns=(
                    Column("Model", "left"),
                    Column("Norm", "left"),
                    Column("ε"),
                    Column("Clipped"),
                    Column("Worst-case error"),
                    Column("95 % interval"),
                    Column("Misclassified"),
                    Column("Attacks", "left"),
                ),
                rows=tuple(_worst_case_row(results, experiment, each) for each in found),
            )


def _worst_case_row(results: Results, experiment: Experiment, found: WorstCase) -> tuple[Cell, ...]:
    failed = [
        f"{attack.label} {FAILED}"
        for attack in experiment.attacks
        if attack.label not in found.attacks
        and attack.clip == found.clip
        and found.epsilon in attack.epsilon
        and results.state(_cut(experiment, attack, found.epsilon), found.model) == "failed"
    ]
    rate = found.worst_case_error
    return cells(
        found.model,
        found.norm.symbol,
        str(found.epsilon),
        yes_no(found.clip),
        percent(rate),
        interval(found.worst_case_error_low, found.worst_case_error_high, rate=rate),
        share(found.misclassified, found.examples),
        ", ".join([*found.attacks, *failed]),
    )


def member_tables(results: Results) -> Iterator[Table]:
    """Yields a table a dataset: a line per model, list of attacks, epsilon and attack of it."""
    for experiment in results.experiments:
        labels = {attack.label for attack in experiment.attacks}
        rows = tuple(
            _member_row(each)
            for each in results.record.members
            if each.dataset == experiment.dataset.name and each.attack in labels
        )
        if rows:
            yield Table(
                title=_on(experiment.dataset.name),
                columns=(
                    Column("Model", "left"),
                    Column("Attack", "left"),
                    Column("ε"),
                    Column("Member", "left"),
                    Column("Given", level=1),
                    Column("Misled"),
                    Column("Error after it"),
                    Column("95 % interval", level=1),
                ),
                rows=rows,
            )


def _member_row(found: Member) -> tuple[Cell, ...]:
    after = error_after(found)
    head = cells(found.model, found.attack, str(found.epsilon), found.member)
    if after.state != "done":
        return (*head, *cells(NOTHING, NOTHING, _word(after.state), NOTHING))
    return (
        *head,
        *cells(
            count(found.given),
            count(found.misled),
            percent(after.rate),
            interval(after.low, after.high, rate=after.rate),
        ),
    )
