"""Checks whether a model answers the same inputs alike: at once, and after many calls."""

from __future__ import annotations

from torch import Tensor

from gibbon.diagnostics.examination.closeness import relative_difference
from gibbon.diagnostics.examination.module_search import first_random
from gibbon.diagnostics.examination.observe import MOST_CALLS, cause_of, comparison
from gibbon.diagnostics.examination.observed import OtherAnswers
from gibbon.diagnostics.examination.subject import CheckNotes, CheckReport, Subject, counted
from gibbon.models.repeatability import Cause
from gibbon.records.examination import ExaminedFlag

NAME, LATER = "the same inputs twice", "the same inputs after many calls"
AFTER = "the same inputs after the attacks"
UNSTEADY = "answers the same inputs differently each time: its numbers are one draw of many"
FROM = {
    Cause.SEEDED: UNSTEADY,
    Cause.OWN_GENERATOR: f"{UNSTEADY}; its random numbers come from a generator that it keeps, so "
    "that they are never taken from an earlier run",
    Cause.UNKNOWN: f"{UNSTEADY}; they come from random numbers elsewhere than in torch, numpy and "
    "random, or from a state out of reach, so that they are never taken from an earlier run",
}
CHANGING = "answers the same inputs differently from call to call: by state that each call changes"
DRAWS = "eot = 20"
TRIED, CALLS_AGAIN = 2, 5  # examples and calls that show randomness which two calls did not
REMEMBERED = 4  # examples whose first answers are compared with later ones
AFTER_SHARE = 8  # of what is left after attacks, one pass in so many compares answers
MOST_LATER = 200  # calls before the first inputs are given again
CALLS_SHARE = 4  # calls take at most this part of what is left


def same_inputs_twice(subject: Subject) -> CheckReport:
    """Compares two calls on the sample; raises ``random-answers`` or ``stateful-answers``.

    Which of them is decided by `gibbon.models.repeatability.cause_of_change`.
    """
    observed = subject.observed
    notes = CheckNotes(NAME, f"{counted(len(observed.outputs), 'example')}, 2 calls")
    notes.figures["changed classes"] = observed.changed
    if observed.steady:
        return notes.report()
    figure = f"{observed.changed} of {len(observed.outputs)} classes changed"
    cause = observed.cause or Cause.SEEDED
    if cause is Cause.SEEDED and not observed.repeats:
        cause = Cause.UNKNOWN  # equal seeds gave equal answers by chance
    notes.found.append(_changing(subject, cause, figure))
    return notes.report()


def _changing(subject: Subject, cause: Cause, figure: str) -> ExaminedFlag:
    """Returns the flag of a model whose answers differ between calls on the same inputs."""
    if cause is Cause.STATE:
        subject.remembers = True
        return ExaminedFlag(kind="stateful-answers", figure=figure, sentence=CHANGING)
    path = "" if subject.observed.steady else first_random(subject)
    place = f" (the first part that does is {path})" if path else ""
    return ExaminedFlag(
        kind="random-answers", figure=figure, sentence=f"{FROM[cause]}{place}", suite=DRAWS
    )


def changes_after_all(subject: Subject) -> ExaminedFlag | None:
    """Returns the flag of a model that answers alike in two calls, but not in several.

    A difference in other circumstances means nothing in such a model.  None if several calls agree.
    """
    calls = min(CALLS_AGAIN, subject.left // TRIED)
    if calls < 2:
        return None
    inputs = subject.batch(subject.rows(TRIED)).inputs
    first = subject.ask(inputs)
    others = [_distance(first, subject.ask(inputs)) for _ in range(calls - 1)]
    different = sum(each > subject.observed.tolerance for each in others)
    if not different:
        return None
    figure = f"{different} of {len(others)} calls differ from the first"
    cause = cause_of(
        subject.classifier,
        inputs,
        calls=min(MOST_CALLS, subject.left // TRIED),
    )
    return _changing(subject, cause, figure)


def _distance(one: Tensor, other: Tensor) -> float:
    return float(relative_difference(one, other).max())


def changed_since(subject: Subject, inputs: Tensor, outputs: Tensor) -> ExaminedFlag | None:
    """Returns the flag of a model that no longer gives these outputs; None if it does."""
    count = min(REMEMBERED, subject.left, len(inputs))
    if count < 1:
        return None
    found = comparison(outputs[:count], subject.ask(inputs[:count]))
    if found.difference <= subject.observed.tolerance:
        return None
    subject.remembers = True
    return _later_flag(found)


def _later_flag(found: OtherAnswers, when: str = "after many calls") -> ExaminedFlag:
    return ExaminedFlag(
        kind="stateful-answers",
        figure=f"{found.difference:.2g} of the outputs' range",
        sentence=f"answers the same inputs differently {when}: "
        f"{found.changed} of {found.count} classes changed",
    )


def same_inputs_after_attacks(subject: Subject) -> CheckReport:
    """Compares answers after the attacks of a run with the first; raises ``stateful-answers``.

    It is the only check that sees a model change late, by a count or a clock.
    """
    notes, observed = CheckNotes(AFTER), subject.observed
    if not observed.steady:
        return notes.abstain("its answers can't be repeated")
    if subject.left < 1:
        return notes.leave_out(1)
    count = min(REMEMBERED, len(observed.outputs), max(1, subject.left // AFTER_SHARE))
    rows = subject.rows(count)
    notes.looked_at = counted(count, "example")
    found = comparison(observed.outputs[rows], subject.ask(subject.batch(rows).inputs))
    notes.figures["relative difference"] = found.difference
    if found.difference > observed.tolerance and not _mixes(subject):
        subject.remembers = True
        notes.found.append(_later_flag(found, "after the attacks"))
    return notes.report()


def _mixes(subject: Subject) -> bool:
    """Returns whether examples were seen to be answered otherwise among fewer."""
    alone = subject.observed.alone
    return subject.mixes or (alone is not None and alone.difference > subject.observed.tolerance)


def same_inputs_later(subject: Subject, first: Tensor, rows: list[int]) -> CheckReport:
    """Calls the model on single examples many times, and compares with the first answers.

    ``first`` are the answers to ``rows`` of the sample before all other checks.
    """
    notes = CheckNotes(LATER)
    if not subject.observed.steady or subject.mixes:
        return notes.abstain(subject.excuse or "it answers at random")
    if subject.remembers:
        return notes.abstain("its answers were found to change")
    needed = len(rows) + 1
    if subject.left < needed:
        return notes.leave_out(needed)
    inputs = subject.batch(rows).inputs
    calls = max(1, min(MOST_LATER, (subject.left - len(rows)) // CALLS_SHARE))
    for call in range(calls):
        subject.ask(inputs[call % len(inputs)][None])
    found = comparison(first, subject.ask(inputs))
    notes.looked_at = (
        f"{counted(len(rows), 'example')}, {counted(calls, 'call')} and those of other checks"
    )
    notes.figures["relative difference"] = found.difference
    if found.difference > subject.observed.tolerance:
        notes.found.append(changes_after_all(subject) or _later_flag(found))
    return notes.report()
