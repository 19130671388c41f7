"""Look-up of the results of a stored run by dataset, attack, epsilon and model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

from gibbon.core.threat import ZERO, Epsilon
from gibbon.records.flag_kinds import ABOUT_ANSWERS
from gibbon.records.flags import Flag, FlagIndex
from gibbon.records.no_class import FoolingRate, NoClassEvaluation, NoClassShare
from gibbon.records.run import (
    Agreement,
    CertifiedBound,
    Evaluation,
    Failure,
    FlaggedRow,
    MemberEvaluation,
    RunRecord,
    Transfer,
    WorstCase,
    flags_of,
)
from gibbon.specs.base import UNATTACKED
from gibbon.specs.published import NO_CLASS_MEASURES, PublishedRow
from gibbon.specs.suite import AttackSpec, Experiment

CellState = Literal["done", "failed", "not run"]


@dataclass(frozen=True)
class Condition:
    """An attack at one epsilon on one dataset."""

    dataset: str
    attack: str
    epsilon: Epsilon

    @classmethod
    def unattacked(cls, dataset: str) -> Condition:
        """Returns the unattacked examples of a dataset."""
        return cls(dataset, UNATTACKED, ZERO)

    @classmethod
    def of(cls, row: Evaluation | Transfer | Agreement) -> Condition:
        """Returns the condition of a stored row."""
        return cls(row.dataset, row.attack, row.epsilon)

    def __str__(self) -> str:
        return "unattacked" if self.attack == UNATTACKED else f"{self.attack}, ε = {self.epsilon}"


@dataclass(frozen=True)
class Measured:
    """A measured rate with its interval, and the counts that it was computed from.

    A rate is ``part`` of ``whole`` examples; a mean, such as a confidence, has a ``whole`` only.
    ``flags`` are those that affect it.
    """

    state: CellState
    rate: float | None = None
    low: float | None = None
    high: float | None = None
    part: int | None = None
    whole: int | None = None
    flags: tuple[Flag, ...] = ()

    @property
    def ends(self) -> tuple[float, float]:
        """The ends of the interval; the rate itself for a measure without an interval."""
        rate = self.rate or 0.0
        return (
            rate if self.low is None else self.low,
            rate if self.high is None else self.high,
        )


class RunLookup:
    """The evaluations, transfers and agreements of a run, indexed by what they measure."""

    def __init__(self, record: RunRecord) -> None:
        self.record = record
        self.experiments = record.suite.with_classes
        self.without_classes = record.suite.without_classes
        self._no_class = {(each.dataset, each.model): each for each in record.no_class}
        self._evaluations = {(_key(each), each.model): each for each in record.evaluations}
        self._transfers = {
            (Condition.of(each), each.source, each.target): each for each in record.transfers
        }
        self._agreements = {
            (Condition.of(each), each.source, frozenset({each.first, each.second})): each
            for each in record.agreements
        }
        self._members: dict[tuple[tuple[str, str, Epsilon | None], str], list[str]] = {}
        for member in record.members:
            self._members.setdefault((_key(member), member.model), []).append(member.member)
        self._failures = {(_key(each), each.model) for each in record.failures}
        self._by_dataset = {each.dataset.name: each for each in record.suite.experiments}
        self.claims = {each.id: each for each in record.claims}
        self._flags = FlagIndex(record.flags)
        # Of dataset and model: the number of failed cells, and the flags that name both.
        self.failed_cells = Counter(
            (each.dataset, each.model) for each in record.evaluations if each.status == "failed"
        )
        self.flags_of_model: dict[tuple[str, str], list[Flag]] = {}
        for flag in record.flags:
            self.flags_of_model.setdefault((flag.dataset, flag.model), []).append(flag)
        self.targeted = frozenset(
            each.dataset for each in record.evaluations if each.target_rate is not None
        )

    def evaluation(self, condition: Condition, model: str) -> Evaluation | None:
        """Returns the evaluation of a model, which may have failed, or None if there is none."""
        return self._evaluations.get((_key(condition), model))

    def listed_attacks(self, row: Evaluation) -> tuple[str, ...]:
        """Returns the labels of the attacks of a list that a suite writes out; empty for others."""
        if not row.is_written_list:
            return ()
        return tuple(self._members.get((_key(row), row.model), ()))

    def transfer(self, condition: Condition, source: str, target: str) -> Transfer | None:
        """Returns the errors of ``target`` on the examples made on ``source``, if there are any."""
        return self._transfers.get((condition, source, target))

    def state(self, condition: Condition, model: str) -> CellState:
        """Returns whether a cell is done, failed or was not run."""
        evaluation = self.evaluation(condition, model)
        if evaluation is not None:
            return evaluation.status
        return "failed" if (_key(condition), model) in self._failures else "not run"

    def error(self, condition: Condition, model: str) -> Measured:
        """Returns the adversarial error of a cell, or the clean error if it is unattacked."""
        found = self.evaluation(condition, model)
        if found is None:
            return Measured(self.state(condition, model))
        measured = clean_error(found) if found.unattacked else adversarial_error(found)
        return replace(measured, flags=self.flags(found))

    def flags(self, row: FlaggedRow | None, *, clean: bool = False) -> tuple[Flag, ...]:
        """Returns the flags that affect the numbers of a row.

        ``clean`` is for the clean error: as in an unattacked row, only flags about the answers of
        the model affect it.
        """
        if row is None:
            return ()
        found = flags_of(row, self._flags)
        unattacked = isinstance(row, Evaluation) and row.unattacked
        if clean or unattacked:
            return tuple(each for each in found if not each.attack and each.kind in ABOUT_ANSWERS)
        return found

    def conditions(self, experiment: Experiment) -> Iterator[Condition]:
        """Yields each attack at each epsilon of an experiment, in the suite's order."""
        for attack in experiment.attacks:
            for epsilon in attack.epsilon:
                yield Condition(experiment.dataset.name, attack.label, epsilon)

    def attack_conditions(self, experiment: Experiment, attack: AttackSpec) -> list[Condition]:
        """Returns an attack of an experiment at each epsilon, the smallest first."""
        return [
            Condition(experiment.dataset.name, attack.label, each)
            for each in sorted(attack.epsilon)
        ]

    def transfer_conditions(self, experiment: Experiment) -> Iterator[Condition]:
        """Yields each attack and epsilon that the experiment scores on other models."""
        attacks = experiment.transfer.attacks if experiment.transfer else ()
        return (
            condition for condition in self.conditions(experiment) if condition.attack in attacks
        )

    def trainings(self, row: PublishedRow, attack: str) -> tuple[Measured, ...]:
        """Returns the measured value of a published row in each training, under ``attack``.

        A row's model is a model of the suite, or the ``seeds_of`` of several.  With several sources
        and several targets, the first source is taken with the first target, the second with the
        second, and so on; the shorter list starts again at its end.
        """
        experiment = self._by_dataset.get(row.dataset)
        names = {"model": row.model, "target": row.target, "compared_with": row.compared_with}
        groups = {
            key: (experiment and experiment.trainings_of(name)) or (name,)
            for key, name in names.items()
            if name is not None
        }
        taken = (
            {key: group[place % len(group)] for key, group in groups.items()}
            for place in range(max(map(len, groups.values())))
        )
        return tuple(
            self._published_in_one(row.model_copy(update=named), attack) for named in taken
        )

    def _published_in_one(self, row: PublishedRow, attack: str) -> Measured:
        """Returns the measured value of a published row for the models of its names."""
        condition = Condition(row.dataset, attack, row.epsilon)
        if row.value is None:
            return Measured("not run")
        if row.measure in NO_CLASS_MEASURES:
            return self._published_no_class(row)
        if row.target is None:
            return self._published_evaluation(row, condition)
        found: Transfer | Agreement | None
        if row.compared_with is not None:
            pair = frozenset({row.target, row.compared_with})
            found = self._agreements.get((condition, row.model, pair))
        else:
            found = self.transfer(condition, row.model, row.target)
        if found is None:
            return self.absent(condition, row.model)
        measured = same_class_given_both(found)
        if isinstance(found, Transfer) and row.measure == "transfer_error":
            measured = transfer_error(found)
        if isinstance(found, Transfer) and row.measure == "same_class_given_source_misclassified":
            measured = same_class_given_source(found)
        return replace(measured, flags=self.flags(found))

    def absent(self, condition: Condition, source: str) -> Measured:
        """Returns why the examples of a source were not scored: it failed, or was not run."""
        return Measured("failed" if self.state(condition, source) == "failed" else "not run")

    def _published_no_class(self, row: PublishedRow) -> Measured:
        """Returns a measure of inputs without a class; of one class if the row names one."""
        found = self._no_class.get((row.dataset, row.model))
        if found is None or found.status == "failed":
            return Measured("not run" if found is None else "failed")
        own = (row.dataset, row.model)
        if row.measure == "confidence_on_false_positives":
            rate = found.confidence_on_false_positives
            low = found.confidence_on_false_positives_low
            high = found.confidence_on_false_positives_high
            return Measured("done", rate, low, high, whole=found.false_positives)
        if row.measure == "share_of_false_positives":
            for share in self.record.no_class_shares:
                if (share.dataset, share.model) == own and _is_class(row, share):
                    ends = share.share_low, share.share_high
                    return Measured("done", share.share, *ends, share.count, share.false_positives)
            return Measured("not run")
        if row.measure == "fooling_rate" and row.of_class is not None:
            for each in self.record.fooling:
                if (each.dataset, each.model) == own and _is_class(row, each):
                    ends = each.fooling_rate_low, each.fooling_rate_high
                    rates = each.fooling_rate, *ends, each.fooled, each.examples
                    return Measured(each.status, *rates)
            return Measured("not run")
        measured = no_class_rate(found, row.measure)
        if row.measure == "fooling_rate" and measured.rate is None:  # it was not requested
            return Measured("not run")
        return measured

    def _published_evaluation(self, row: PublishedRow, condition: Condition) -> Measured:
        if row.measure == "clean_error":
            return self.error(Condition.unattacked(row.dataset), row.model)
        found = self.evaluation(condition, row.model)
        if found is None or found.status == "failed":
            return Measured(self.state(condition, row.model))
        ends = found.mean_confidence_low, found.mean_confidence_high
        measured = Measured("done", found.mean_confidence, *ends, whole=found.examples)
        if row.measure == "adversarial_error":
            measured = adversarial_error(found)
        if row.measure in ("worst_case_error", "certified_error"):
            measured = worst_case_error(found)
        if row.measure == "confidence_on_misclassified":
            rate = found.confidence_on_misclassified
            ends = found.confidence_on_misclassified_low, found.confidence_on_misclassified_high
            measured = Measured("done", rate, *ends, whole=found.misclassified)
        return replace(measured, flags=self.flags(found))


def no_class_rate(found: NoClassEvaluation, field: str) -> Measured:
    """Returns a rate of a model on inputs without a class, with its interval.

    The mean fooling rate is a mean over classes and AUROC is no share of examples: they have no
    count.
    """
    rate: float | None = getattr(found, field)
    ends = getattr(found, f"{field}_low"), getattr(found, f"{field}_high")
    if rate is None or field in ("auroc", "fooling_rate"):
        return Measured("done", rate, *ends)
    return Measured("done", rate, *ends, round(rate * found.examples), found.examples)


def _is_class(row: PublishedRow, found: NoClassShare | FoolingRate) -> bool:
    """Returns whether a row is about this class, which it calls by its name or its number."""
    return str(row.of_class) in (found.of_class, str(found.index))


def largest_epsilons(conditions: Iterable[Condition]) -> dict[str, Condition]:
    """Returns each attack of some conditions on one dataset at the largest of its epsilons."""
    return {each.attack: each for each in sorted(conditions, key=lambda each: each.epsilon)}


def clean_error(found: Evaluation) -> Measured:
    """Returns the clean error of the model that an evaluation is about."""
    correct = found.clean_correct
    part = None if correct is None else found.examples - correct
    return _measured(found, "clean_error", found.examples, part=part)


def adversarial_error(found: Evaluation) -> Measured:
    """Returns the adversarial error of an evaluation."""
    return _measured(found, "adversarial_error", found.examples, part=found.misclassified)


def success_rate(found: Evaluation) -> Measured:
    """Returns the attack success rate: of the examples classified correctly when clean."""
    return _measured(found, "attack_success_rate", found.clean_correct)


def worst_case_error(found: Evaluation | WorstCase) -> Measured:
    """Returns the share misclassified clean or by any candidate of one or more attacks."""
    return _measured(found, "worst_case_error", found.examples)


def robust_accuracy(found: Evaluation | WorstCase) -> Measured:
    """Returns the share classified correctly clean and at every candidate of an attack or several.

    It is 1 minus `worst_case_error`.
    """
    wrong = worst_case_error(found)
    part = None if wrong.part is None else found.examples - wrong.part
    low, high = found.robust_accuracy_low, found.robust_accuracy_high
    return replace(wrong, rate=found.robust_accuracy, low=low, high=high, part=part)


def certified_error(found: Evaluation | WorstCase | CertifiedBound) -> Measured:
    """Returns the share of examples that are not proved robust under a row's threat model."""
    return _measured(found, "certified_error", found.examples)


def error_after(found: MemberEvaluation) -> Measured:
    """Returns the share misclassified clean, by an attack of a list or by one before it."""
    return _measured(found, "error_after", found.examples)


def transfer_error(found: Transfer) -> Measured:
    """Returns the target's error on the source's examples."""
    return _measured(found, "error", found.examples)


def error_given_source(found: Transfer) -> Measured:
    """Returns the target's error on the examples that the source misclassifies."""
    return _measured(found, "error_given_source_misclassified", found.source_misclassified)


def same_class_given_source(found: Transfer) -> Measured:
    """Returns the share of the source's misclassified examples on which both agree."""
    return _measured(found, "same_class_given_source_misclassified", found.source_misclassified)


def same_class_given_both(found: Transfer | Agreement) -> Measured:
    """Returns the share of the examples that both misclassify on which both agree."""
    return _measured(found, "same_class_given_both_misclassified", found.both_misclassified)


def _measured(
    found: Evaluation | MemberEvaluation | Transfer | Agreement | WorstCase | CertifiedBound,
    field: str,
    whole: int | None,
    *,
    part: int | None = None,
) -> Measured:
    """Returns the rate in one field of a record, with the interval in the fields beside it."""
    if not isinstance(found, WorstCase | CertifiedBound) and found.status == "failed":
        return Measured("failed")
    rate: float | None = getattr(found, field)
    low, high = getattr(found, f"{field}_low"), getattr(found, f"{field}_high")
    if part is None and rate is not None and whole is not None:
        part = round(rate * whole)
    return Measured("done", rate, low, high, part, whole)


def _key(
    of: Condition | Evaluation | MemberEvaluation | Failure,
) -> tuple[str, str, Epsilon | None]:
    # There is one unattacked row a model, whatever epsilon it was written with.
    return of.dataset, of.attack, None if of.attack == UNATTACKED else of.epsilon
