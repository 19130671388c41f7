"""The first lines of a report: whether its numbers may be used, and which checks were made."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Literal

from gibbon.core.plain_text import printable
from gibbon.records.checks import CheckDone
from gibbon.records.run import RunRecord
from gibbon.report.content.parts.flag_groups import FlagGroup, flag_groups, times

DONT_USE: Final = "Don't use these numbers yet"
PASSED: Final = "These checks passed"
MANY: Final = 6  # checks, with what they examined, that a terminal shows
NO_CHECKS: Final = "run the suite again, so that its models and attacks are examined."

OpeningState = Literal["unusable", "incomplete", "passed", "unchecked"]


@dataclass(frozen=True)
class Opening:
    """The first lines of a report.

    Args:
        state: ``unusable``: there are serious flags that nobody accepted; ``incomplete``: cells
            failed or are missing; ``passed``: there is neither, and checks passed; ``unchecked``:
            there is neither, and no check passed.
        title: the first words.
        text: the words after the title.
        reasons: the serious flags that nobody accepted.
        notes: sentences about accepted flags and about checks.
    """

    state: OpeningState
    title: str
    text: str
    reasons: tuple[FlagGroup, ...]
    notes: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """The title and the text as one sentence."""
        return f"{self.title}: {self.text}" if self.text else f"{self.title}."


def opening(record: RunRecord, *, brief: bool = False) -> Opening:
    """Returns the first lines of a report on a run.

    ``brief`` leaves out what each check examined if there are many checks, as in a terminal.
    """
    shown = _names if brief and len(record.checks) > MANY else _checks
    groups = flag_groups(record.flags)
    reasons = tuple(each for each in groups if each.counts)
    passed = [each for each in record.checks if each.passed]
    notes = [
        *_accepted(each for each in groups if each.accepted),
        *_flagged(shown(each for each in record.checks if not each.passed)),
    ]
    if reasons:
        count = sum(each.count for each in reasons)
        flags = "1 serious flag" if count == 1 else f"{count:,} serious flags"
        if passed:
            notes.append(f"{PASSED}: {shown(passed)}.")
        return Opening("unusable", DONT_USE, f"{flags}.", reasons, tuple(notes))
    if record.status not in ("done", "failed"):
        title, text = "This run is not complete", f"{record.status}; cells are missing."
    elif record.failures:
        failed = len(record.failures)
        title = "1 cell failed" if failed == 1 else f"{failed:,} cells failed"
        text = "their numbers are missing."
    elif passed:
        return Opening("passed", PASSED, f"{shown(passed)}.", (), tuple(notes))
    elif record.checks:
        return Opening("unchecked", "No check passed", "see the flags.", (), tuple(notes))
    else:
        return Opening("unchecked", "No checks are recorded", NO_CHECKS, (), tuple(notes))
    if passed:
        notes.append(f"{PASSED}: {shown(passed)}.")
    return Opening("incomplete", title, text, (), tuple(notes))


def _checks(checks: Iterable[CheckDone]) -> str:
    """Returns the names of checks, each with what it examined, which several may share."""
    names: dict[str, list[str]] = {}
    for each in checks:
        names.setdefault(each.looked_at, []).append(each.name)
    return printable("; ".join(f"{', '.join(of)} ({seen})" for seen, of in names.items()))


def _names(checks: Iterable[CheckDone]) -> str:
    """Returns the names of checks."""
    return printable(", ".join(each.name for each in checks))


def _flagged(names: str) -> Iterator[str]:
    if names:
        yield f"These checks raised flags: {names}."


def _accepted(groups: Iterable[FlagGroup]) -> Iterator[str]:
    if names := "; ".join(f"`{each.kind}` ({times(each.count)})" for each in groups):
        yield f"Accepted flags, for which the user takes responsibility: {names}."
