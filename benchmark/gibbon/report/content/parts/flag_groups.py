"""Flags grouped by kind for reports: one line a kind, then the subjects that have it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from gibbon.core.plain_text import printable, printable_lines
from gibbon.records.flag_kinds import KINDS, Severity
from gibbon.records.flags import Flag, sorted_flags

MARK: Final = "‡"  # after a number that a serious flag affects
WHOLE_RUN: Final = "the whole run"
ACCEPTED: Final = "accepted: the user takes responsibility"


@dataclass(frozen=True)
class FlagLine:
    """Flags of one group with equal sentences on several subjects.

    ``advice``, ``suite`` and ``source`` are empty if they are those of the group.
    """

    seen: str
    subjects: tuple[str, ...]
    advice: str = ""
    suite: str = ""
    source: str = ""

    @property
    def text(self) -> str:
        """The subjects, and what was seen of them."""
        return f"{'; '.join(self.subjects)}: {self.seen}"


@dataclass(frozen=True)
class FlagGroup:
    """Flags of one kind and severity.

    Args:
        kind: name of the kind.
        title: its title.
        severity: the severity of all of them.
        accepted: whether the user takes responsibility for them.
        lines: what was seen, each with its subjects.
        advice, suite, source: those of all flags; empty if they differ, and are in the lines.
    """

    kind: str
    title: str
    severity: Severity
    accepted: bool
    lines: tuple[FlagLine, ...]
    advice: str = ""
    suite: str = ""
    source: str = ""

    @property
    def counts(self) -> bool:
        """Whether these flags say that numbers must not be used."""
        return self.severity == "serious" and not self.accepted

    @property
    def count(self) -> int:
        """The number of flags."""
        return sum(len(line.subjects) for line in self.lines)

    @property
    def status(self) -> str:
        """The severity, and whether the flags are accepted."""
        return f"{self.severity}, {ACCEPTED}" if self.accepted else self.severity

    @property
    def summary(self) -> str:
        """The title with the number of flags."""
        return f"{self.title} ({times(self.count)})"


def flag_groups(flags: Iterable[Flag]) -> tuple[FlagGroup, ...]:
    """Returns flags in groups, the serious ones first.

    >>> def flag(attack: str) -> Flag:
    ...     return Flag(kind="zero-gradient", attack=attack, figure="9 of 9", sentence="it is zero")
    >>> (group,) = flag_groups([flag("fgsm"), flag("pgd")])
    >>> group.summary
    'the input gradient is zero in every coordinate (twice)'
    >>> [line.text for line in group.lines]
    ['fgsm; pgd: it is zero (9 of 9)']
    """
    groups: dict[tuple[str, Severity, bool], list[Flag]] = {}
    for each in sorted_flags(flags):
        groups.setdefault((each.kind, each.severity, each.accepted), []).append(each)
    return tuple(_group(members) for members in groups.values())


def times(count: int) -> str:
    """Returns how often something was seen.

    >>> times(1), times(2), times(1200)
    ('once', 'twice', '1,200 times')
    """
    return {1: "once", 2: "twice"}.get(count, f"{count:,} times")


def _group(flags: list[Flag]) -> FlagGroup:
    first = flags[0]
    settling = [
        (printable(each.advice), printable_lines(each.suite), printable(each.source))
        for each in flags
    ]
    shared = [_shared(set(texts)) for texts in zip(*settling, strict=True)]
    lines: dict[tuple[str, ...], list[str]] = {}
    for each, texts in zip(flags, settling, strict=True):
        own = ["" if text == common else text for text, common in zip(texts, shared, strict=True)]
        subject = printable(each.subject) or WHOLE_RUN
        lines.setdefault((printable(_seen(each)), *own), []).append(subject)
    advice, suite, source = shared
    return FlagGroup(
        kind=first.kind,
        title=KINDS[first.kind].title,
        severity=first.severity,
        accepted=first.accepted,
        lines=tuple(
            FlagLine(seen, tuple(subjects), *own) for (seen, *own), subjects in lines.items()
        ),
        advice=advice,
        suite=suite,
        source=source,
    )


def _shared(texts: set[str]) -> str:
    return next(iter(texts)) if len(texts) == 1 else ""


def _seen(flag: Flag) -> str:
    """Returns the sentence of a flag, with the figure if the sentence does not have it."""
    if not flag.figure or flag.figure in flag.sentence:
        return flag.sentence
    return f"{flag.sentence} ({flag.figure})"
