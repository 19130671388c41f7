"""Verdict cards: for each model its robust accuracy, under which threat, and by which evidence.

They are the first screen of a report.  A card holds no number that is in no table; it adds how much
effort stands behind the number: attacks, their steps, examples, checks and flags.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from gibbon.core.plain_text import printable
from gibbon.records.flag_kinds import SEVERITIES, Severity
from gibbon.records.flags import Flag
from gibbon.records.run import Evaluation, RunRecord, WorstCase
from gibbon.report.content.parts.flag_groups import WHOLE_RUN
from gibbon.report.content.parts.layout import NOTHING, TableCell
from gibbon.report.content.parts.lookup import (
    Condition,
    Measured,
    RunLookup,
    adversarial_error,
    robust_accuracy,
)
from gibbon.report.content.parts.number_format import count_of, percent, rate_cell
from gibbon.report.content.summary.headline import HeadlineThreat, headline_threats, strongest
from gibbon.specs.suite import Experiment

# Parameters that say how long an attack searches, in the order in which a card names them.
_EFFORT: Final = ("steps", "restarts", "queries", "candidates", "targets")
_NAMED_MODELS: Final = 3  # models that the first sentence names, at most


@dataclass(frozen=True)
class FlagCount:
    """How many flags of one kind and severity there are about one subject."""

    kind: str
    severity: Severity
    accepted: bool
    count: int

    @property
    def counts(self) -> bool:
        """Whether these flags say that numbers must not be used."""
        return self.severity == "serious" and not self.accepted

    @property
    def words(self) -> str:
        """The severity, ``accepted`` and the number, such as ``serious, 8``."""
        return f"{self.severity}{', accepted' if self.accepted else ''}, {self.count:,}"


@dataclass(frozen=True)
class ModelFlags:
    """The flags about one model on one dataset, or about the whole run if both are empty."""

    dataset: str
    model: str
    kinds: tuple[FlagCount, ...]

    @property
    def subject(self) -> str:
        """Dataset and model, or that the whole run is meant."""
        return printable(", ".join(filter(None, (self.dataset, self.model)))) or WHOLE_RUN

    @property
    def count(self) -> int:
        """The number of flags."""
        return sum(each.count for each in self.kinds)


@dataclass(frozen=True)
class AttackEffort:
    """An attack of a card: its name, how long it searched, and the error that it found."""

    name: str
    effort: str
    error: TableCell


@dataclass(frozen=True)
class VerdictCard:
    """A model under one threat model.

    Args:
        model, dataset: their names.
        threat: the threat model, None if no attack was run.
        accuracy: the robust accuracy, or why there is none.
        share: the examples that withstood everything, of all; empty if there is no number.
        clean: the clean accuracy.
        strongest: the attack that found most errors; empty if there is none.
        attacks: the attacks behind the number.
        flags: the flags about the model on this dataset.
    """

    model: str
    dataset: str
    threat: HeadlineThreat | None
    accuracy: TableCell
    share: str
    clean: TableCell
    strongest: str
    attacks: tuple[AttackEffort, ...]
    flags: tuple[FlagCount, ...]

    @property
    def look(self) -> str:
        """The CSS class: ``doubtful`` if a serious flag is not accepted or the cell failed.

        Else ``noted`` if there are other flags, or no number; else empty.  It says nothing about
        whether the model is robust.
        """
        if any(each.counts for each in self.flags) or self.accuracy.kind == "failed":
            return "doubtful"
        return "noted" if self.flags or not self.share else ""


@dataclass(frozen=True)
class ChecksDone:
    """How many checks passed, and the names of those that raised flags."""

    passed: int
    of: int
    flagged: tuple[str, ...]


def verdict_cards(results: RunLookup) -> tuple[VerdictCard, ...]:
    """Returns a card for each model at each threat of the headline, in the suite's order."""
    flags = {
        (each.dataset, each.model): each.kinds for each in flags_by_model(results.record.flags)
    }
    return tuple(
        card for experiment in results.experiments for card in _cards(results, experiment, flags)
    )


def flags_by_model(flags: Iterable[Flag]) -> tuple[ModelFlags, ...]:
    """Returns flags counted by model and kind: subjects with serious flags first.

    >>> flag = Flag(kind="zero-gradient", model="net", figure="9 of 9", sentence="it is zero")
    >>> [(each.subject, each.kinds[0].words) for each in flags_by_model([flag, flag])]
    [('net', 'serious, 2')]
    """
    counted: dict[tuple[str, str], Counter[tuple[str, Severity, bool]]] = {}
    for each in flags:
        subject = counted.setdefault((each.dataset, each.model), Counter())
        subject[each.kind, each.severity, each.accepted] += 1
    found = [
        ModelFlags(
            dataset,
            model,
            tuple(
                sorted(
                    (FlagCount(*key, count) for key, count in kinds.items()),
                    key=lambda each: (
                        not each.counts,
                        each.accepted,
                        SEVERITIES.index(each.severity),
                        -each.count,
                    ),
                )
            ),
        )
        for (dataset, model), kinds in counted.items()
    ]
    return tuple(sorted(found, key=lambda each: not any(kind.counts for kind in each.kinds)))


def checks_done(record: RunRecord) -> ChecksDone | None:
    """Returns the checks of a run, or None if its record does not say which were made."""
    if not record.checks:
        return None
    flagged = tuple(printable(each.name) for each in record.checks if not each.passed)
    return ChecksDone(len(record.checks) - len(flagged), len(record.checks), flagged)


def title_sentence(cards: Sequence[VerdictCard]) -> str:
    """Returns the first sentence of a report: the robust accuracy under its first threat model.

    It is about the first dataset.  Of several models it names those with the highest number.  What
    was measured by attacks is an upper bound: "at most".
    """
    done = [each for each in cards if each.share]
    if not done:
        return "No robust accuracy was measured."
    first = done[0]
    compared = [
        each for each in done if (each.dataset, each.threat) == (first.dataset, first.threat)
    ]
    most = max(each.accuracy.value or 0.0 for each in compared)
    best = [each for each in compared if (each.accuracy.value or 0.0) == most]
    accuracy = f"at most {best[0].accuracy.marked}"
    where = f"on {first.dataset}", f"under {first.threat}"
    if len(compared) == 1:
        return f"{first.model} has a robust accuracy of {accuracy} {' '.join(where)}."
    if len(best) == len(compared):
        return f"{len(compared):,} models have a robust accuracy of {accuracy} {' '.join(where)}."
    names = " and ".join(each.model for each in best[:_NAMED_MODELS])
    verb = "has" if len(best) == 1 else "have"
    return (
        f"Of {len(compared):,} models, {names} {verb} the highest robust accuracy {where[0]}: "
        f"{accuracy} {where[1]}."
    )


def _cards(
    results: RunLookup,
    experiment: Experiment,
    flags: dict[tuple[str, str], tuple[FlagCount, ...]],
) -> Iterator[VerdictCard]:
    dataset = experiment.dataset.name
    found = [each for each in results.record.worst_cases if each.dataset == dataset]
    by_threat = {
        (each.model, HeadlineThreat(each.norm, each.clip, each.epsilon)): each for each in found
    }
    threats: tuple[HeadlineThreat | None, ...] = headline_threats(experiment, found) or (None,)
    for threat in threats:
        for model in experiment.models:
            worst = None if threat is None else by_threat.get((model.name, threat))
            own = flags.get((dataset, model.name), ())
            yield _card(results, experiment, model.name, threat, worst, own)


def _card(
    results: RunLookup,
    experiment: Experiment,
    model: str,
    threat: HeadlineThreat | None,
    worst: WorstCase | None,
    flags: tuple[FlagCount, ...],
) -> VerdictCard:
    dataset = experiment.dataset.name
    clean = results.error(Condition.unattacked(dataset), model)
    attacks = tuple(_attacks(results, worst)) if worst is not None else ()
    best = strongest(results, worst) if worst is not None else None
    accuracy = Measured("not run") if worst is None else robust_accuracy(worst)
    cell = rate_cell(accuracy) if experiment.attacks else NOTHING
    if worst is None and experiment.attacks and _has_failed(results, experiment, model):
        cell = rate_cell(Measured("failed"))
    return VerdictCard(
        model=model,
        dataset=dataset,
        threat=threat,
        accuracy=cell.flagged(results.flags(worst)),
        share="" if accuracy.rate is None else count_of(accuracy.part, accuracy.whole).text,
        clean=rate_cell(_accuracy_of(clean), clean=True),
        strongest=best.attack if best is not None else "",
        attacks=attacks,
        flags=flags,
    )


def _accuracy_of(error: Measured) -> Measured:
    if error.rate is None:
        return error
    low, high = error.ends
    return Measured(error.state, 1 - error.rate, 1 - high, 1 - low, flags=error.flags)


def _attacks(results: RunLookup, worst: WorstCase) -> Iterator[AttackEffort]:
    for name in worst.attacks:
        found = results.evaluation(Condition(worst.dataset, name, worst.epsilon), worst.model)
        if found is not None:
            yield AttackEffort(name, attack_effort(found), percent(adversarial_error(found).rate))


def attack_effort(found: Evaluation) -> str:
    """Returns how long an attack searched: its steps and restarts, else its passes an example."""
    values = found.parameter_values
    said = [
        f"{values[name]:,} {name if values[name] != 1 else name.removesuffix('s')}"
        for name in _EFFORT
        if isinstance(values.get(name), int)
        and not isinstance(values[name], bool)
        and (values[name] != 1 or name == "steps")
    ]
    if said:
        return ", ".join(said)
    passes = (found.forward_passes + found.backward_passes) / max(1, found.examples)
    return f"{passes:,.0f} passes an example" if passes >= 1 else ""


def _has_failed(results: RunLookup, experiment: Experiment, model: str) -> bool:
    return any(
        results.state(condition, model) == "failed" for condition in results.conditions(experiment)
    )
