"""Checks whether answers depend on whether gradients are recorded."""

from __future__ import annotations

from gibbon.diagnostics.examination.answers_repeat import changes_after_all
from gibbon.diagnostics.examination.subject import CheckNotes, CheckReport, Subject
from gibbon.records.examination import ExaminedFlag


def gradient_modes(subject: Subject) -> CheckReport:
    """Compares answers with gradients recorded and not; raises ``detects-gradients``."""
    notes, observed = CheckNotes("with and without gradients"), subject.observed
    if not observed.steady:
        return notes.abstain("it answers at random")
    found = observed.with_gradients
    if found is None:
        return notes.abstain("nothing was compared")
    notes.looked_at = f"{2 * found.count} points, on and off the data"
    notes.figures["relative difference"] = found.difference
    if found.error:
        return notes.abstain(f"it raises an exception: {found.error}")
    if found.difference > observed.tolerance:
        notes.found.append(
            changes_after_all(subject)
            or ExaminedFlag(
                kind="detects-gradients",
                figure=f"{found.difference:.2g} of the outputs' range",
                sentence="answers otherwise while gradients are recorded: "
                f"{found.changed} of {found.count} classes changed",
            )
        )
    return notes.report()
