"""Checks whether the answer to an input depends on the other inputs of its batch."""

from __future__ import annotations

from gibbon.diagnostics.examination.answers_repeat import changes_after_all
from gibbon.diagnostics.examination.observe import comparison
from gibbon.diagnostics.examination.subject import CheckNotes, CheckReport, Subject, counted
from gibbon.records.examination import ExaminedFlag

NAME = "alone, among others and in another order"
MOST = 32  # examples in another order
SHARE = 8  # they take at most this part of what is left


def batch_composition(subject: Subject) -> CheckReport:
    """Compares single examples, and examples in another order and number, with those in the batch.

    Raises ``batch-dependent``.
    """
    observed = subject.observed
    notes = CheckNotes(NAME)
    if not observed.steady:
        return notes.abstain("it answers at random")
    alone = observed.alone
    looked_at = []
    if alone is not None:
        looked_at.append(f"{counted(alone.count, 'example')} alone")
        notes.figures["relative difference alone"] = alone.difference
        if alone.error:
            _flag(notes, f"can't answer one example alone: {alone.error}", "")
        elif alone.difference > observed.tolerance:
            sentence = (
                "answers an example alone otherwise than among others: "
                f"{alone.changed} of {alone.count} classes changed"
            )
            _flag(notes, sentence, f"{alone.difference:.2g} of the outputs' range")
    count = min(MOST, len(observed.outputs) - 1, max(2, subject.left // SHARE))
    if count >= 2 and subject.left >= count:
        rows = sorted(subject.rows(count), reverse=True)
        found = comparison(observed.outputs[rows], subject.ask(subject.batch(rows).inputs))
        looked_at.append(f"{count} in another order and among fewer")
        notes.figures["relative difference in another order"] = found.difference
        if found.difference > observed.tolerance and not notes.found:
            sentence = (
                "answers examples otherwise in another order or among fewer: "
                f"{found.changed} of {found.count} classes changed"
            )
            _flag(notes, sentence, f"{found.difference:.2g} of the outputs' range")
    notes.looked_at = ", ".join(looked_at)
    changing = changes_after_all(subject) if notes.found else None
    if changing is not None:
        notes.found = [changing]
    else:
        subject.mixes = bool(notes.found)
    if not looked_at:
        return notes.leave_out(2)
    return notes.report()


def _flag(notes: CheckNotes, sentence: str, figure: str) -> None:
    notes.found.append(ExaminedFlag(kind="batch-dependent", figure=figure, sentence=sentence))
