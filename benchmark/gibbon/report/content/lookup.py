"""A stored run, looked up by what was asked for: what is there, what failed, what was not run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from gibbon.core.threat import Epsilon
from gibbon.records.run import Agreement, Evaluation, Member, RunRecord, Status, Transfer
from gibbon.report.content.number_format import counted
from gibbon.specs.base import UNATTACKED
from gibbon.specs.published import PublishedRow
from gibbon.specs.suite import Experiment

State = Literal["done", "failed", "not run"]


@dataclass(frozen=True)
class Cut:
    """One attack at one epsilon on one dataset: what a transfer matrix is about."""

    dataset: str
    attack: str
    epsilon: Epsilon


@dataclass(frozen=True)
class Measured:
    """One measured rate with its interval, and the counts that it was made from.

    ``part`` of ``whole`` examples; a mean, such as a confidence, has a ``whole`` only.
    """

    state: State
    rate: float | None = None
    low: float | None = None
    high: float | None = None
    part: int | None = None
    whole: int | None = None


class Results:
    """The evaluations, transfers and agreements of a run, by what they are about."""

    def __init__(self, record: RunRecord) -> None:
        self.record = record
        self._evaluations = {
            (each.dataset, each.model, each.attack, _budget(each.attack, each.epsilon)): each
            for each in record.evaluations
        }
        self._transfers = {
            (Cut(each.dataset, each.attack, each.epsilon), each.source, each.target): each
            for each in record.transfers
        }
        self._agreements = {
            (
                Cut(each.dataset, each.attack, each.epsilon),
                each.source,
                frozenset({each.first, each.second}),
            ): each
            for each in record.agreements
        }
        self._failures = {
            (each.dataset, each.model, each.attack, _budget(each.attack, each.epsilon))
            for each in record.failures
        }

    @property
    def experiments(self) -> tuple[Experiment, ...]:
        """The experiments of the suite, in its order."""
        return self.record.suite.experiments

    def evaluation(self, cut: Cut, model: str) -> Evaluation | None:
        """Returns the evaluation of a model, if it is there; it may be a failed one."""
        budget = _budget(cut.attack, cut.epsilon)
        return self._evaluations.get((cut.dataset, model, cut.attack, budget))

    def clean(self, dataset: str, model: str) -> Evaluation | None:
        """Returns the unattacked row of a model, if it is there."""
        return self._evaluations.get((dataset, model, UNATTACKED, None))

    def transfer(self, cut: Cut, source: str, target: str) -> Transfer | None:
        """Returns how ``target`` fared on the examples made on ``source``, if it is there."""
        return self._transfers.get((cut, source, target))

    def agreement(self, cut: Cut, source: str, first: str, second: str) -> Agreement | None:
        """Returns how two targets agree on ``source``'s examples, in whichever order."""
        return self._agreements.get((cut, source, frozenset({first, second})))

    def state(self, cut: Cut, model: str) -> State:
        """Returns whether a cell is done, failed or was not run."""
        evaluation = self.evaluation(cut, model)
        if evaluation is not None:
            return evaluation.status
        budget = _budget(cut.attack, cut.epsilon)
        failed = (cut.dataset, model, cut.attack, budget) in self._failures
        return "failed" if failed else "not run"

    def cuts(self, experiment: Experiment) -> Iterator[Cut]:
        """Yields each attack at each epsilon of an experiment, in the suite's order."""
        for attack in experiment.attacks:
            for epsilon in attack.epsilon:
                yield Cut(experiment.dataset.name, attack.label, epsilon)

    def transfer_cuts(self, experiment: Experiment) -> Iterator[Cut]:
        """Yields each attack and epsilon that the experiment scores on other models."""
        wanted = experiment.transfer.attacks if experiment.transfer else ()
        return (cut for cut in self.cuts(experiment) if cut.attack in wanted)

    def published(self, row: PublishedRow, attack: str) -> Measured:
        """Returns what was measured of what a published row is about, under ``attack``."""
        cut = Cut(row.dataset, attack, row.epsilon)
        if row.value is None:
            return Measured("not run")
        if row.target is None:
            return self._published_evaluation(row, cut)
        if row.compared_with is not None:
            return self._published_agreement(row, cut)
        return self._published_transfer(row, cut)

    def _published_evaluation(self, row: PublishedRow, cut: Cut) -> Measured:
        if row.measure == "clean_error":
            cut = Cut(row.dataset, UNATTACKED, row.epsilon)
        found = self.evaluation(cut, row.model)
        if found is None or found.status == "failed":
            return Measured(self.state(cut, row.model))
        if row.measure == "clean_error":
            return clean_error(found)
        if row.measure == "adversarial_error":
            return adversarial_error(found)
        if row.measure == "confidence_on_misclassified":
            return Measured("done", found.confidence_on_misclassified, whole=found.misclassified)
        return Measured("done", found.mean_confidence, whole=found.examples)

    def _published_agreement(self, row: PublishedRow, cut: Cut) -> Measured:
        found = self.agreement(cut, row.model, row.target or "", row.compared_with or "")
        if found is None:
            return Measured("failed" if self.state(cut, row.model) == "failed" else "not run")
        return same_class_given_both(found)

    def _published_transfer(self, row: PublishedRow, cut: Cut) -> Measured:
        found = self.transfer(cut, row.model, row.target or "")
        if found is None:
            return Measured("failed" if self.state(cut, row.model) == "failed" else "not run")
        if row.measure == "transfer_error":
            return transfer_error(found)
        if row.measure == "same_class_given_source_misclassified":
            return same_class_given_source(found)
        return same_class_given_both(found)


def clean_error(found: Evaluation) -> Measured:
    """Returns the clean error of the model that an evaluation is about."""
    if found.status == "failed":
        return Measured("failed")
    part = None if found.clean_correct is None else found.examples - found.clean_correct
    return Measured(
        "done",
        found.clean_error,
        found.clean_error_low,
        found.clean_error_high,
        part,
        found.examples,
    )


def adversarial_error(found: Evaluation) -> Measured:
    """Returns the adversarial error of an evaluation."""
    if found.status == "failed":
        return Measured("failed")
    return Measured(
        "done",
        found.adversarial_error,
        found.adversarial_error_low,
        found.adversarial_error_high,
        found.misclassified,
        found.examples,
    )


def success_rate(found: Evaluation) -> Measured:
    """Returns the attack success rate: of the examples classified correctly when clean."""
    return _shared(
        found.status,
        found.attack_success_rate,
        found.attack_success_rate_low,
        found.attack_success_rate_high,
        found.clean_correct,
    )


def worst_case_error(found: Evaluation) -> Measured:
    """Returns the share misclassified clean or by any candidate of one attack."""
    return _shared(
        found.status,
        found.worst_case_error,
        found.worst_case_error_low,
        found.worst_case_error_high,
        found.examples,
    )


def error_after(found: Member) -> Measured:
    """Returns the share misclassified clean or by a member of a list, or by one before it."""
    return _shared(
        found.status,
        found.error_after,
        found.error_after_low,
        found.error_after_high,
        found.examples,
    )


def transfer_error(found: Transfer) -> Measured:
    """Returns the target's error on the source's examples."""
    return _shared(found.status, found.error, found.error_low, found.error_high, found.examples)


def error_given_source(found: Transfer) -> Measured:
    """Returns the target's error on the examples that mislead the source."""
    return _shared(
        found.status,
        found.error_given_source_misclassified,
        found.error_given_source_misclassified_low,
        found.error_given_source_misclassified_high,
        found.source_misclassified,
    )


def same_class_given_source(found: Transfer) -> Measured:
    """Returns how often the target gives the source's wrong class, given the source is misled."""
    return _shared(
        found.status,
        found.same_class_given_source_misclassified,
        found.same_class_given_source_misclassified_low,
        found.same_class_given_source_misclassified_high,
        found.source_misclassified,
    )


def same_class_given_both(found: Transfer | Agreement) -> Measured:
    """Returns how often two models give the same wrong class, given both are misled."""
    return _shared(
        found.status,
        found.same_class_given_both_misclassified,
        found.same_class_given_both_misclassified_low,
        found.same_class_given_both_misclassified_high,
        found.both_misclassified,
    )


def _shared(
    status: Status, rate: float | None, low: float | None, high: float | None, whole: int | None
) -> Measured:
    if status == "failed":
        return Measured("failed")
    return Measured("done", rate, low, high, counted(rate, whole), whole)


def _budget(attack: str, epsilon: Epsilon) -> Epsilon | None:
    # There is one unattacked row a model, whatever epsilon it was written with.
    return None if attack == UNATTACKED else epsilon
