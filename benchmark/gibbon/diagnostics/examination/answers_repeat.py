"""Checks whether a model answers the same inputs alike: at once, and after many calls."""

from __future__ import annotations

from torch import Tensor

from gibbon.diagnostics.examination.closeness import relative_difference
from gibbon.diagnostics.examination.model_state import ModelState
from gibbon.diagnostics.examination.module_search import first_random
from gibbon.diagnostics.examination.observe import comparison
from gibbon.diagnostics.examination.observed import OtherAnswers
from gibbon.diagnostics.examination.subject import Notebook, Report, Subject, counted
from gibbon.records.examination import ExaminedFlag

NAME, LATER = "the same inputs twice", "the same inputs after many calls"
UNSTEADY = "answers the same inputs differently each time: its numbers are one draw of many"
UNREPEATABLE = (
    f"{UNSTEADY}; its random numbers come from elsewhere than torch, numpy and random, so that "
    "they are never taken from an earlier run"
)
DRAWS = "eot = 20"
TRIED, CALLS_AGAIN = 2, 5  # examples and calls that show randomness which two calls did not
REMEMBERED = 4  # examples that show whether answers depend on what the model keeps
LEAST_CHANGE, KEPT_SHARE = 1e-5, 0.1  # of the outputs' range, and of the change that is undone
UNSEEN = 0.05  # of the way to the middle of the bounds
MOST_CALLS = 200
CALLS_SHARE = 4  # calls take at most this part of what is left


def same_inputs_twice(subject: Subject) -> Report:
    """Compares two calls on the sample; raises ``random-answers`` or ``stateful-answers``.

    Answers that differ at random come alike from what the model keeps between calls, if they are
    equal once that is put back.
    """
    observed = subject.observed
    notes = Notebook(NAME, f"{counted(len(observed.outputs), 'example')}, 2 calls")
    notes.figures["changed classes"] = observed.changed
    if observed.steady:
        return notes.report()
    total = len(observed.outputs)
    figure = f"{observed.changed} of {total} classes changed"
    if subject.left >= 3 * REMEMBERED and _depends_on_state(subject):
        subject.remembers = True
        notes.found.append(
            ExaminedFlag(
                kind="stateful-answers",
                figure=figure,
                sentence="answers the same inputs differently in each call, and alike once what it "
                "keeps between calls is put back",
            )
        )
        return notes.report()
    path = first_random(subject)
    place = f" (the first part that does is {path})" if path else ""
    sentence = f"{UNSTEADY if observed.repeats else UNREPEATABLE}{place}"
    notes.found.append(
        ExaminedFlag(kind="random-answers", figure=figure, sentence=sentence, suite=DRAWS)
    )
    return notes.report()


def random_after_all(subject: Subject) -> ExaminedFlag | None:
    """Returns the flag of a model that answers at random, though two calls agreed by chance.

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
    return ExaminedFlag(kind="random-answers", figure=figure, sentence=UNSTEADY, suite=DRAWS)


def _depends_on_state(subject: Subject) -> bool:
    given = subject.batch(subject.rows(REMEMBERED)).inputs
    bounds = subject.classifier.bounds
    # Inputs that it has not seen: it may remember the others.
    inputs = given + UNSEEN * ((bounds.low + bounds.high) / 2 - given)
    state = ModelState(subject.classifier)
    first = subject.ask(inputs)
    state.restore()
    again = subject.ask(inputs)
    later = subject.ask(inputs)
    state.restore()
    changed = _distance(first, later)
    return changed > LEAST_CHANGE and _distance(first, again) <= KEPT_SHARE * changed


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


def _later_flag(found: OtherAnswers) -> ExaminedFlag:
    return ExaminedFlag(
        kind="stateful-answers",
        figure=f"{found.difference:.2g} of the outputs' range",
        sentence="answers the same inputs differently after many calls: "
        f"{found.changed} of {found.count} classes changed",
    )


def same_inputs_later(subject: Subject, first: Tensor, rows: list[int]) -> Report:
    """Calls the model on single examples many times, and compares with the first answers.

    ``first`` are the answers to ``rows`` of the sample before all other checks.
    """
    notes = Notebook(LATER)
    if not subject.observed.steady or subject.mixes:
        return notes.abstain(subject.excuse or "it answers at random")
    if subject.remembers:
        return notes.abstain("its answers were found to change")
    needed = len(rows) + 1
    if subject.left < needed:
        return notes.leave_out(needed)
    inputs = subject.batch(rows).inputs
    calls = max(1, min(MOST_CALLS, (subject.left - len(rows)) // CALLS_SHARE))
    for call in range(calls):
        subject.ask(inputs[call % len(inputs)][None])
    found = comparison(first, subject.ask(inputs))
    notes.looked_at = f"{counted(len(rows), 'example')}, {calls} calls and those of other checks"
    notes.figures["relative difference"] = found.difference
    if found.difference > subject.observed.tolerance:
        notes.found.append(random_after_all(subject) or _later_flag(found))
    return notes.report()
